//! `selvedge explain`: what each node would do with a request now, and why. The request is not made.

use selvedge_origin::api::wire::{
    Ask, ExplainAction, ExplainAsk, Explanation, FieldTold, Layer, NodeTold, RouteTold, SlicesTold, Stored, TagsTold, Told,
};
use serde_json::json;

use super::questions::{self, Verdict};
use crate::args::ExplainArgs;
use crate::output::{Output, Tone};

/// Runs the command.
pub(super) async fn run(args: ExplainArgs, output: Output) -> anyhow::Result<u8> {
    let ask = ExplainAsk { url: args.url.clone(), method: args.method, headers: args.headers };
    let answers = questions::ask(Ask::Explain(ask), &args.asking).await?;
    let verdict = Verdict::of(&answers);
    for node in &answers.nodes {
        if let Some(Told::Explained(explanation)) = &node.told {
            print(node, explanation, output);
        }
    }
    questions::warn(&answers, args.asking.connected_only, output);
    output.document(&json!({ "url": args.url, "result": verdict.name(), "nodes": answers.nodes }));
    Ok(verdict.code(args.asking.connected_only))
}

fn print(node: &NodeTold, explanation: &Explanation, output: Output) {
    let head = format!("{} ({})", node.node, node.region);
    if let Some(reason) = &explanation.refused {
        output.block(
            &head,
            "refuse",
            Tone::Bad,
            &[("because", reason.clone()), ("route", explanation.route.as_ref().map(route).unwrap_or_default())],
        );
    }
    for (at, layer) in explanation.layers.iter().enumerate() {
        let place = if at == 0 { head.clone() } else { format!("  {}", layer.place) };
        let mut rows = vec![("because", layer.verdict.because.clone())];
        if at == 0 {
            rows.push(("route", explanation.route.as_ref().map(route).unwrap_or_default()));
        }
        rows.extend(lines(layer));
        let tone = match layer.verdict.action {
            ExplainAction::Hit | ExplainAction::Stale => Tone::Good,
            ExplainAction::Refuse => Tone::Bad,
            _ => Tone::Plain,
        };
        output.block(&place, &layer.verdict.action.to_string(), tone, &rows);
    }
}

fn route(route: &RouteTold) -> String {
    let worker = match (&route.worker, &route.version) {
        (Some(worker), Some(version)) => format!(" worker {worker} {version}"),
        _ => String::new(),
    };
    let upstream = route.upstream.as_ref().map(|upstream| format!(" upstream {upstream}")).unwrap_or_default();
    format!("{} to{worker}{upstream}", route.pattern)
}

/// What is known of one place of the cache.
fn lines(layer: &Layer) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(status) = &layer.verdict.cache_status {
        lines.push(("cache-status", status.clone()));
    }
    lines.push(("key", layer.key.clone()));
    match &layer.stored {
        Some(stored) => lines.extend(of_stored(stored)),
        None => lines.push(("stored", "nothing".to_owned())),
    }
    for other in &layer.others {
        lines.push(("other variant", fields(other)));
    }
    if layer.uncollapsed {
        lines.push(("collapsing", "off for a moment: an answer of the key was not for the cache".to_owned()));
    }
    if let Some(refusal) = &layer.refusal {
        lines.push(("last refusal", format!("{}, {} s ago", refusal.reason, refusal.ago_s)));
    }
    lines
}

fn of_stored(stored: &Stored) -> Vec<(&'static str, String)> {
    let range = stored.range.as_ref().map(|range| format!(", bytes {range}")).unwrap_or_default();
    let tiers = if stored.tiers.is_empty() { "nowhere any more".to_owned() } else { format!("in {}", stored.tiers.join(" and ")) };
    let mut lines = vec![
        ("stored", format!("{}, {} bytes{range}, {tiers}", stored.status, stored.body_bytes)),
        ("age", format!("{} of {} s ({})", stored.age_ms / 1000, stored.lifetime_ms / 1000, stored.lifetime_from)),
    ];
    if let Some(slices) = &stored.slices {
        lines.push(("slices", of_slices(slices)));
    }
    if !stored.variant.is_empty() {
        lines.push(("variant", fields(&stored.variant)));
    }
    lines.push(("tags", tags(&stored.tags)));
    let purge = &stored.purge;
    let since = purge.soft_ms.map(|ms| format!(" for {} s", ms / 1000)).unwrap_or_default();
    lines.push(("purges", format!("{}{since} (fetched after purge {}, the latest is {})", purge.verdict, purge.stamp, purge.latest)));
    lines.extend(stored.headers.iter().map(|field| ("header", one(field))));
    if stored.headers_more > 0 {
        lines.push(("header", format!("and {} more", stored.headers_more)));
    }
    lines
}

fn of_slices(slices: &SlicesTold) -> String {
    let of =
        if slices.looked < slices.count { format!("the first {}, of {}", slices.looked, slices.count) } else { slices.count.to_string() };
    format!("{} of {of} are here, of {} bytes each; this is the first", slices.here, slices.slice_bytes)
}

fn tags(tags: &TagsTold) -> String {
    let shown = tags.names.len() + tags.hashes.len();
    let mut said = tags.names.clone();
    said.extend(tags.hashes.iter().map(|hash| format!("hash {hash}")));
    let list = match tags.count.saturating_sub(shown) {
        0 => said.join(", "),
        more => format!("{} and {more} more", said.join(", ")),
    };
    match (tags.every, tags.count) {
        (true, 0) => "every: it has more than are kept".to_owned(),
        (true, _) => format!("every: it has more than are kept, among them {list}"),
        (false, 0) => "none".to_owned(),
        (false, _) => list,
    }
}

fn fields(fields: &[FieldTold]) -> String {
    if fields.is_empty() { "any request".to_owned() } else { fields.iter().map(one).collect::<Vec<_>>().join(", ") }
}

fn one(field: &FieldTold) -> String {
    match &field.value {
        Some(value) => format!("{}: {value}", field.name),
        None => format!("no {}", field.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_counted() {
        let told = |here, looked, count| of_slices(&SlicesTold { here, looked, count, slice_bytes: 65_536 });
        assert_eq!(told(3, 17, 17), "3 of 17 are here, of 65536 bytes each; this is the first");
        assert_eq!(told(9, 4_096, 9_000), "9 of the first 4096, of 9000 are here, of 65536 bytes each; this is the first");
    }

    #[test]
    fn tags_are_shown_by_name_with_how_many_more_there_are() {
        let told = |names: &[&str], hashes: &[&str], count, every| {
            let [names, hashes] = [names, hashes].map(|texts| texts.iter().map(|text| (*text).to_owned()).collect());
            tags(&TagsTold { names, hashes, count, every })
        };
        assert_eq!(told(&[], &[], 0, false), "none");
        assert_eq!(told(&["a", "b c"], &[], 2, false), "a, b c");
        assert_eq!(told(&["a"], &["00ff"], 12, false), "a, hash 00ff and 10 more");
        assert_eq!(told(&[], &[], 0, true), "every: it has more than are kept");
        assert_eq!(told(&["a"], &[], 256, true), "every: it has more than are kept, among them a and 255 more");
    }
}
