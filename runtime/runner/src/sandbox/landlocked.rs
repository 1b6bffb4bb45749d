//! The second wall: no file, no TCP connection, no abstract Unix socket, by Landlock.

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope};

/// Restricts this thread, and those that it will start, as far as the kernel can. False where it cannot at all.
pub(super) fn restrict() -> Result<bool, String> {
    let describe = |error: landlock::RulesetError| error.to_string();
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI::V5)))
        .and_then(|ruleset| ruleset.scope(Scope::AbstractUnixSocket))
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.restrict_self())
        .map_err(describe)?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
