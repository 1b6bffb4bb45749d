//! `selvedge apply`: a site file becomes the routes of its site.

use selvedge_origin::api::wire::{RouteDiff, SiteApply};
use selvedge_origin::registry::{RequestId, RouteRecord};

use super::applied::{self, Verdict};
use super::{DONE, registry};
use crate::args::ApplyArgs;
use crate::difference;
use crate::output::{Output, Tone};
use crate::site::Site;

/// Runs the command.
pub(super) async fn run(args: ApplyArgs, output: Output) -> anyhow::Result<u8> {
    let site = Site::load(&args.file)?;
    for warning in &site.warnings {
        output.warn(warning);
    }
    let client = registry::connect(&args.registry)?;
    let apply = SiteApply {
        routes: site.routes.clone(),
        take_over: args.take_over,
        dry_run: args.dry_run,
        message: args.message,
        request_id: Some(RequestId::generate()),
    };
    let applied = registry::retry(|| client.apply_site(&site.name, &apply)).await?;
    print(&applied.diff, output);
    if args.dry_run {
        output.line("nothing was changed (--dry-run)");
    } else if applied.diff.is_empty() {
        output.line(format!("site {}: no difference", site.name));
    } else {
        output.line(format!("site {}: {} routes", site.name, site.routes.len()));
    }
    let mut document = serde_json::json!({ "site": site.name, "dry_run": args.dry_run, "seq": applied.seq, "diff": applied.diff });
    let verdict = match applied.seq {
        Some(seq) => applied::settle(&client, seq, &args.waiting, &mut document, output).await?,
        None => None,
    };
    output.document(&document);
    Ok(verdict.map_or(DONE, Verdict::code))
}

fn print(diff: &RouteDiff, output: Output) {
    for route in &diff.added {
        let from = diff.taken_over.iter().find(|taken| taken.pattern == route.pattern);
        let from = from.map(|taken| format!(" (from {})", taken.from)).unwrap_or_default();
        output.line(output.paint(&format!("+ {}{from}", describe(route)), Tone::Good));
        difference::cache(route).iter().for_each(|key| output.line(format!("    {key}")));
    }
    for change in &diff.changed {
        output.line(format!("~ {}", describe(&change.after)));
        difference::keys(&change.before, &change.after).iter().for_each(|key| output.line(format!("    {key}")));
    }
    for route in &diff.removed {
        output.line(output.paint(&format!("- {}", describe(route)), Tone::Bad));
    }
}

/// A route for people.
pub(super) fn describe(route: &RouteRecord) -> String {
    let mut text = format!("{} ->", route.pattern);
    if let Some(worker) = &route.worker {
        text.push_str(&format!(" worker {worker}"));
    }
    if let Some(upstream) = &route.upstream {
        text.push_str(&format!(" upstream {upstream}"));
    }
    if route.redirect_to_https {
        text.push_str(", redirects to https");
    }
    if !route.compress.enabled {
        text.push_str(", no compression");
    }
    if route.early_hints {
        text.push_str(", early hints");
    }
    match (route.cache.enabled, route.cache.store_set_cookie) {
        (Some(false), _) => text.push_str(", no cache"),
        (Some(true), true) => text.push_str(", cache, also with cookies"),
        (Some(true), false) => text.push_str(", cache"),
        (None, true) => text.push_str(", cache also with cookies"),
        (None, false) => {}
    }
    text
}
