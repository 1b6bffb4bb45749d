//! ctx.cache.purge(): what reaches the edge, and what its answers mean.

use selvedge_runtime::protocol::{ToEdge, ToRunner};
use selvedge_runtime::{CachePurge, PurgeRefusal};

use crate::rig::Rig;

crate::tests![
    a_purge_reaches_the_edge_and_tells_how_it_went,
    what_is_no_purge_is_refused_by_name,
    purges_count_among_the_running_subrequests,
    a_purge_needs_a_request,
];

fn asked(rig: &Rig) -> Vec<(u32, CachePurge)> {
    let purge = |message| if let ToEdge::Purge { part, purge, .. } = message { Some((part, *purge)) } else { None };
    rig.said().into_iter().filter_map(purge).collect()
}

fn a_purge_reaches_the_edge_and_tells_how_it_went() {
    let mut rig = Rig::worker(
        "import { cache } from 'cloudflare:workers';
         export default { async fetch(request, env, ctx) {
            const made = await ctx.cache.purge({ tags: ['a', 5], pathPrefixes: ['/b/'], purgeEverything: undefined });
            const refused = await cache.purge({ purgeEverything: true });
            const beyond = await cache.purge({ urls: [new URL('/c', request.url)], files: ['d.org/e'], prefixes: ['f.org/'], hosts: ['g.org'], soft: 1 }).catch((error) => `${error.name}: ${error.message}`);
            return Response.json([made, refused, beyond, ctx.cache === cache, Object.isFrozen(cache)]);
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.deliver(ToRunner::Purged { stream: 1, part: 1, refused: None });
    rig.deliver(ToRunner::Purged { stream: 1, part: 2, refused: Some(PurgeRefusal { code: 429, message: "later".into() }) });
    rig.deliver(ToRunner::Fetched { stream: 1, part: 3, result: Err("Too many subrequests".into()), url: String::new(), redirects: 0 });
    rig.finish(1);
    assert_eq!(
        rig.body(1),
        r#"[{"success":true,"errors":[]},{"success":false,"errors":[{"code":429,"message":"later"}]},"TypeError: Too many subrequests",true,true]"#
    );
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let purges = [
        CachePurge { tags: names(&["a", "5"]), path_prefixes: names(&["/b/"]), ..CachePurge::default() },
        CachePurge { everything: true, ..CachePurge::default() },
        CachePurge {
            urls: names(&["https://example.org/c", "d.org/e"]),
            prefixes: names(&["f.org/"]),
            hosts: names(&["g.org"]),
            soft: true,
            ..CachePurge::default()
        },
    ];
    assert_eq!(asked(&rig), (1..).zip(purges).collect::<Vec<_>>());
}

fn what_is_no_purge_is_refused_by_name() {
    let mut rig = Rig::worker(
        "export default { async fetch(request, env, ctx) {
            const named = [];
            for (const given of [undefined, null, 'a', { zones: ['a'] }, { files: 'https://a.org/' }, { tags: 'a' }, { pathPrefixes: { 0: '/' } },
                                 { tags: Array(1001).fill('a') }, { tags: ['x'.repeat(1025)] }, { tags: Array(100).fill('x'.repeat(1000)) },
                                 { get tags() { throw new TypeError('a getter'); } }, { tags: [Symbol.iterator, { toString() { throw 1 } }] }]) {
                const answer = await ctx.cache.purge(given).catch((error) => String(error));
                named.push(String(answer));
            }
            return Response.json(named);
         } }",
    );
    let text = rig.text("https://example.org/");
    for word in [
        "takes an object",
        "zones is not supported: tags, pathPrefixes, urls, files, prefixes, hosts, purgeEverything, soft are",
        "files must be an array",
        "tags must be an array",
        "pathPrefixes must be an array",
        "at most 1000 things",
        "at most 1024 bytes",
        "together",
        "a getter",
        "\"1\"",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(asked(&rig).is_empty());
}

fn purges_count_among_the_running_subrequests() {
    let mut rig = Rig::worker(
        "export default { async fetch(request, env, ctx) {
            const all = Array.from({ length: 5000 }, () => ctx.cache.purge({ tags: ['a'] }).catch((error) => error.message));
            return new Response(await all.at(-1));
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.until(|rig| rig.said().iter().any(|message| matches!(message, ToEdge::Response { .. })));
    assert_eq!(rig.body(1), "more than 64 subrequests are waiting for their answer");
    assert_eq!(asked(&rig).len(), 64);
}

fn a_purge_needs_a_request() {
    let mut rig = Rig::worker(
        "import { cache } from 'cloudflare:workers';
         const text = await cache.purge({ tags: ['a'] }).catch((error) => error.message);
         export default { fetch() { return new Response(text); } }",
    );
    assert!(rig.text("https://example.org/").contains("within global scope"));
}
