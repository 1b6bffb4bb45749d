//! `./x bench`: Selvedge beside its peers in one run, on one core with the load on the other. Figures are medians of alternating
//! runs; ratios are what counts, because machines differ and are noisy. Writes a table and `target/bench/results.json`
//! (`cache.json` for `./x bench cache`, see [`cache`]).

mod cache;
mod cold;
mod crossing;
mod hit;
mod limits;
mod load;
mod memory;
mod ours;
mod peers;
mod process;
mod table;
mod worker;

use table::Table;

/// One figure: what it is called, and how it is measured.
type Figure = (&'static str, fn(&mut Table) -> anyhow::Result<()>);

const FIGURES: [Figure; 6] = [
    ("worker", worker::measure),
    ("hit", hit::measure),
    ("cold", cold::measure),
    ("crossing", crossing::measure),
    ("memory", memory::measure),
    ("limits", limits::measure),
];

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    match words.split_first() {
        Some((word, rest)) if word == "cache" => return cache::run(rest),
        Some((word, rest)) if word == cache::h3::WORD => return cache::h3::main(rest),
        _ => {}
    }
    // cargo passes `--bench`; what is left names the figures, all without any.
    let wanted = words;
    if let Some(unknown) = wanted.iter().find(|word| !FIGURES.iter().any(|(name, _)| name == word)) {
        anyhow::bail!("no figure {unknown:?}; there are {}", FIGURES.map(|(name, _)| name).join(", "));
    }
    let mut table = Table::default();
    for (name, measure) in FIGURES {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            eprintln!("measuring {name} ...");
            measure(&mut table)?;
        }
    }
    table.print("results")
}
