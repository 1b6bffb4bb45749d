//! Memory per loaded isolate.

use crate::ours::Ours;
use crate::process::memory_of;
use crate::table::Table;

/// Workers before the first and before the second look: the difference leaves out what a runner costs empty.
const FEW: usize = 10;
const MANY: usize = 60;

/// Proportional set size of all processes of the node, per isolate that was added.
pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let ours = Ours::start()?;
    let mut deployed = 0;
    let mut grow = |to: usize| -> anyhow::Result<u64> {
        while deployed < to {
            let script = format!("const n = {deployed}; export default {{ fetch: () => new Response('worker ' + n) }};");
            ours.deploy(&format!("memory-{deployed}"), &script)?;
            deployed += 1;
        }
        Ok(ours.edge.family().into_iter().filter_map(memory_of).sum())
    };
    let few = grow(FEW)?;
    let many = grow(MANY)?;
    table.alone("memory per loaded isolate", "MiB", many.saturating_sub(few) as f64 / (MANY - FEW) as f64 / (1 << 20) as f64, "3");
    Ok(())
}
