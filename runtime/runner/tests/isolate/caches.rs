//! caches and the options of fetch() that are about the cache: what reaches the edge, and what its answers mean.

use http::{HeaderMap, StatusCode};
use selvedge_runtime::protocol::{BodyKind, CacheCallHead, CacheHead, Fields, ResponseHead, ToEdge, ToRunner};
use selvedge_runtime::{FetchCache, StatusTtl};

use crate::rig::Rig;

crate::tests![
    operations_reach_the_edge_with_their_key,
    a_match_gives_the_response_or_undefined,
    what_cannot_be_put_is_refused_by_name,
    a_body_that_is_put_streams_within_its_credit,
    an_endless_body_ends_with_the_refusal_of_its_put,
    a_body_that_fails_says_so_to_the_edge,
    other_methods_find_nothing_unless_the_method_is_ignored,
    operations_count_among_the_running_subrequests,
    caches_need_a_request,
    wishes_of_a_fetch_are_checked_and_unknown_ones_named_once,
    passing_through_is_told_at_once,
];

fn asked(rig: &Rig) -> Vec<(u32, CacheHead)> {
    let cache = |message| if let ToEdge::Cache { part, ask, .. } = message { Some((part, *ask)) } else { None };
    rig.said().into_iter().filter_map(cache).collect()
}

fn settle(rig: &mut Rig, part: u32, yes: bool, note: Option<&str>) {
    rig.deliver(ToRunner::Settled { stream: 1, part, yes, note: note.map(str::to_owned) });
}

fn operations_reach_the_edge_with_their_key() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            const named = await caches.open('pages\\0\\n');
            await named.put('https://EXAMPLE.org/a b?q#part', new Response('text', { status: 203, headers: { 'Cache-Control': 'max-age=5' } }));
            await caches.default.match(new Request('https://example.org/x', { headers: { range: 'bytes=0-1' } }));
            const [gone, not] = [await named.delete(new URL('https://example.org/x')), await caches.default.delete('https://example.org/y')];
            return Response.json([gone, not, named === await caches.open('pages'), caches.default === caches.default]);
         } }",
    );
    rig.get(1, "https://example.org/");
    settle(&mut rig, 1, true, None);
    settle(&mut rig, 2, false, None);
    settle(&mut rig, 3, true, None);
    settle(&mut rig, 4, false, None);
    rig.finish(1);
    assert_eq!(rig.body(1), "[true,false,false,true]");
    let asked = asked(&rig);
    let names: Vec<_> = asked.iter().map(|(part, ask)| (*part, ask.name.as_deref(), ask.url.as_str())).collect();
    assert_eq!(
        names,
        [
            (1, Some("pages\0\n"), "https://example.org/a%20b?q"),
            (2, None, "https://example.org/x"),
            (3, Some("pages\0\n"), "https://example.org/x"),
            (4, None, "https://example.org/y"),
        ]
    );
    let CacheCallHead::Put(head, BodyKind::Whole(body)) = &asked[0].1.call else { panic!("{:?}", asked[0]) };
    assert_eq!((head.status.as_u16(), head.headers["cache-control"].as_bytes(), &body[..]), (203, &b"max-age=5"[..], &b"text"[..]));
    assert!(matches!(asked[1].1.call, CacheCallHead::Match) && asked[1].1.headers["range"] == "bytes=0-1");
    assert!(matches!(asked[2].1.call, CacheCallHead::Delete));
}

fn a_match_gives_the_response_or_undefined() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const found = await caches.default.match('https://example.org/a');
            const missing = await caches.default.match('https://example.org/b');
            const failed = await caches.default.match('https://example.org/c').catch((error) => `${error.name}: ${error.message}`);
            return Response.json([found.status, found.headers.get('etag'), await found.text(), missing === undefined, failed]);
         } }",
    );
    rig.get(1, "https://example.org/");
    let mut headers = HeaderMap::new();
    headers.insert("etag", "\"1\"".parse().expect("a value"));
    let head = Box::new(ResponseHead { status: StatusCode::OK, headers: Fields::from(&headers) });
    rig.deliver(ToRunner::Fetched { stream: 1, part: 1, result: Ok((head, BodyKind::Stream(None))), url: String::new(), redirects: 0 });
    settle(&mut rig, 2, false, None);
    rig.deliver(ToRunner::Fetched { stream: 1, part: 3, result: Err("cache: no".into()), url: String::new(), redirects: 0 });
    rig.deliver(ToRunner::BodyData { stream: 1, part: 1, bytes: "kept".into() });
    rig.deliver(ToRunner::BodyEnd { stream: 1, part: 1, error: None });
    rig.finish(1);
    assert_eq!(rig.body(1), r#"[200,"\"1\"","kept",true,"TypeError: cache: no"]"#);
}

fn what_cannot_be_put_is_refused_by_name() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const url = 'https://example.org/';
            const of = (promise) => promise.then(() => 'kept', (error) => `${error.name}: ${error.message}`);
            const used = new Response('x'); await used.text();
            const all = [
                caches.default.put(new Request(url, { method: 'POST' }), new Response('x')),
                caches.default.put(url, new Response('x', { status: 206 })),
                caches.default.put(url, new Response('x', { headers: { vary: 'accept, *' } })),
                caches.default.put(url, 'x'),
                caches.default.put(url, used),
                caches.default.put('ftp://example.org/', new Response('x')),
                caches.default.put('https://example.org/' + 'x'.repeat(20000), new Response('x')),
                caches.default.addAll([url]), caches.default.keys(), caches.match(url), caches.has('a'),
                caches.open('x'.repeat(600)).then((cache) => cache.match(url)),
            ];
            const names = [];
            for (const promise of all) names.push(await of(promise));
            let illegal; try { new Cache(); } catch (error) { illegal = error.message; }
            return Response.json([...names, illegal]);
         } }",
    );
    let text = rig.text("https://example.org/");
    assert_eq!(text.matches("TypeError").count(), 12, "{text}");
    for part in [
        "non-GET",
        "206",
        "'Vary: *'",
        "takes a Response",
        "already been used",
        "only http and https",
        "16384 bytes",
        "addAll() of a cache",
        "caches.match() is not",
        "caches.has() is not",
        "512 bytes",
        "Illegal constructor",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(asked(&rig).is_empty());
}

fn a_body_that_is_put_streams_within_its_credit() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            let left = 4;
            const body = new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(50_000)); if (--left === 0) c.close(); } });
            await caches.default.put('https://example.org/', new Response(body));
            return new Response('kept');
         } }",
    );
    rig.get(1, "https://example.org/");
    assert!(matches!(asked(&rig)[0].1.call, CacheCallHead::Put(_, BodyKind::Stream(None))));
    rig.until(|rig| rig.data(1, 1).len() == 65_536);
    rig.deliver(ToRunner::Credit { stream: 1, part: 1, bytes: 200_000 });
    rig.until(|rig| rig.ended(1, 1));
    assert_eq!(rig.data(1, 1).len(), 200_000);
    settle(&mut rig, 1, true, None);
    rig.finish(1);
    assert_eq!(rig.body(1), "kept");
}

fn an_endless_body_ends_with_the_refusal_of_its_put() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            let cancelled = false;
            const body = new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(50_000)); }, cancel() { cancelled = true; } });
            const failure = await caches.default.put('https://example.org/', new Response(body)).catch((error) => error.message);
            await scheduler.wait(1);
            return Response.json([failure, cancelled]);
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.until(|rig| rig.data(1, 1).len() == 65_536);
    rig.deliver(ToRunner::Fetched { stream: 1, part: 1, result: Err("too large".into()), url: String::new(), redirects: 0 });
    rig.finish(1);
    assert_eq!(rig.body(1), r#"["too large",true]"#);
    let ends = rig.said().into_iter().filter(|message| matches!(message, ToEdge::BodyEnd { part: 1, error: Some(_), .. })).count();
    assert_eq!(ends, 1, "the edge hears once that no more comes");
}

fn a_body_that_fails_says_so_to_the_edge() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const body = new ReadableStream({ pull(c) { c.error(new Error('upstream cut')); } });
            return new Response(await caches.default.put('https://example.org/', new Response(body)).catch((error) => error.message));
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.until(|rig| {
        rig.said().iter().any(|message| matches!(message, ToEdge::BodyEnd { part: 1, error: Some(text), .. } if text == "upstream cut"))
    });
    rig.deliver(ToRunner::Fetched { stream: 1, part: 1, result: Err("nothing was kept".into()), url: String::new(), redirects: 0 });
    rig.finish(1);
    assert_eq!(rig.body(1), "nothing was kept");
}

fn other_methods_find_nothing_unless_the_method_is_ignored() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const head = new Request('https://example.org/', { method: 'HEAD' });
            const results = [await caches.default.match(head), await caches.default.delete(head)];
            results.push(await caches.default.delete(head, { ignoreMethod: true }));
            return Response.json(results.map(String));
         } }",
    );
    rig.get(1, "https://example.org/");
    assert_eq!(asked(&rig).len(), 1);
    settle(&mut rig, 1, true, None);
    rig.finish(1);
    assert_eq!(rig.body(1), r#"["undefined","false","true"]"#);
}

fn operations_count_among_the_running_subrequests() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const all = Array.from({ length: 5000 }, (_, i) => caches.default.match(`https://example.org/${i}`).catch((error) => error.message));
            return new Response(await all.at(-1));
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.until(|rig| rig.said().iter().any(|message| matches!(message, ToEdge::Response { .. })));
    assert_eq!(rig.body(1), "more than 64 subrequests are waiting for their answer");
    assert_eq!(asked(&rig).len(), 64);
}

fn caches_need_a_request() {
    let mut rig = Rig::worker(
        "const text = await caches.default.match('https://example.org/').catch((error) => error.message);
         export default { fetch() { return new Response(text + String(caches) + String(caches.default)); } }",
    );
    let text = rig.text("https://example.org/");
    assert!(text.contains("within global scope") && text.ends_with("[object CacheStorage][object Cache]"), "{text}");
}

fn wishes_of_a_fetch_are_checked_and_unknown_ones_named_once() {
    let mut rig = Rig::worker(
        "const bad = [{ cacheTtl: 'x' }, { cacheTtlByStatus: { 'abc': 1 } }, { cacheTtlByStatus: 5 }, { cacheKey: '' }, { cacheKey: 'a\\nb' },
                      { cacheTags: 'a' }, { cacheTags: ['a,b'] }, { cacheTags: Array(101).fill('a') }, { cacheTtl: 1e12 }];
         export default { async fetch(request) {
            const refused = [];
            for (const cf of bad) await fetch('https://x.example/', { cf }).catch((error) => refused.push(error.message));
            fetch('https://x.example/', { cf: { cacheTtl: 5.7, cacheTtlByStatus: { '200-299': 60, 404: -1 }, cacheEverything: true,
                                                cacheKey: 'k', cacheTags: ['a', 'b'], polish: 'lossy', mirage: undefined } });
            fetch('https://x.example/', { cf: { polish: 'lossy' } });
            fetch('https://x.example/');
            return Response.json(refused);
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.until(|rig| rig.said().iter().any(|message| matches!(message, ToEdge::Response { .. })));
    let refused = rig.body(1);
    assert_eq!(refused.matches("cf.cache").count(), 9, "{refused}");
    let wishes: Vec<Option<FetchCache>> = rig
        .said()
        .into_iter()
        .filter_map(|message| if let ToEdge::Fetch { cache, .. } = message { Some(cache.map(|wishes| *wishes)) } else { None })
        .collect();
    let all = FetchCache {
        ttl_s: Some(5),
        ttl_by_status: vec![StatusTtl { from: 404, to: 404, ttl_s: -1 }, StatusTtl { from: 200, to: 299, ttl_s: 60 }],
        everything: Some(true),
        key: Some("k".into()),
        tags: vec!["a".into(), "b".into()],
    };
    assert_eq!(wishes, [Some(all), None, None]);
    let lines: Vec<String> = rig.log().into_iter().map(|(_, _, line)| line).collect();
    assert_eq!(lines, ["fetch(): the option cf.polish is not supported and was ignored"]);
}

fn passing_through_is_told_at_once() {
    let mut rig = Rig::worker("export default { fetch(request, env, ctx) { ctx.passThroughOnException(); throw new Error('after'); } }");
    rig.get(1, "https://example.org/");
    let said = rig.said();
    let at = |wanted: fn(&ToEdge) -> bool| said.iter().position(wanted).expect("said");
    assert!(at(|message| matches!(message, ToEdge::PassThrough { stream: 1 })) < at(|message| matches!(message, ToEdge::Failed { .. })));
}
