//! fetch(): subrequests as the edge sees them.

use bytes::Bytes;
use selvedge_runtime::protocol::{BodyKind, RequestHead, ToEdge, ToRunner};
use selvedge_runtime::{Outcome, Redirect};

use crate::rig::Rig;

crate::tests![
    a_subrequest_goes_to_the_edge_and_its_answer_comes_back,
    a_proxied_response_streams_through,
    a_streamed_request_body_waits_for_credit,
    a_failed_subrequest_is_a_type_error,
    an_abort_signal_abandons_the_subrequest,
    a_timeout_signal_abandons_the_subrequest,
    cancel_rejects_what_is_pending,
    fetch_in_global_scope_is_refused,
    too_many_running_subrequests_are_refused,
    invalid_requests_never_reach_the_edge,
    a_relayed_request_does_not_ask_for_an_encoding,
    what_is_wished_of_the_cache_is_not_what_came_with_the_client,
];

fn fetches(rig: &Rig) -> Vec<(u32, RequestHead, Redirect, BodyKind)> {
    rig.said()
        .into_iter()
        .filter_map(|message| match message {
            ToEdge::Fetch { part, head, redirect, body, .. } => Some((part, *head, redirect, body)),
            _ => None,
        })
        .collect()
}

fn a_subrequest_goes_to_the_edge_and_its_answer_comes_back() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            const response = await fetch('https://OTHER.example/a b#fragment', {
                method: 'post', headers: { 'X-Y': 'z' }, body: new URLSearchParams({ q: '1' }), redirect: 'manual',
            });
            let immutable = false;
            try { response.headers.set('a', 'b'); } catch { immutable = true; }
            return Response.json([response.status, response.ok, response.url, response.redirected, response.headers.getSetCookie(),
                                  immutable, await response.text()]);
         } }",
    );
    rig.get(5, "https://example.org/");
    let [(1, head, redirect, body)] = &fetches(&rig)[..] else { panic!("one fetch") };
    assert_eq!((head.method.as_str(), head.url.as_str()), ("POST", "https://other.example/a%20b"));
    assert_eq!(head.headers["x-y"], "z");
    assert_eq!(head.headers["content-type"], "application/x-www-form-urlencoded;charset=UTF-8");
    assert_eq!((*redirect, body), (Redirect::Manual, &BodyKind::Whole("q=1".into())));
    rig.answer(5, 1, BodyKind::Whole("tea".into()));
    rig.finish(5);
    assert_eq!(rig.body(5), r#"[418,false,"https://other.example/end",true,["a=1","b=2"],true,"tea"]"#);
}

fn a_proxied_response_streams_through() {
    let mut rig = Rig::worker("export default { fetch(request) { return fetch(request); } }");
    rig.start(6, http::Method::PUT, "https://example.org/x", &[("x-a", "1")], BodyKind::Stream(Some(3)));
    let [(1, head, _, BodyKind::Stream(Some(3)))] = &fetches(&rig)[..] else { panic!("one fetch: {:?}", fetches(&rig)) };
    assert_eq!((head.method.as_str(), head.headers["x-a"].as_bytes()), ("PUT", &b"1"[..]));
    rig.deliver(ToRunner::BodyData { stream: 6, part: 0, bytes: Bytes::from_static(b"abc") });
    rig.deliver(ToRunner::BodyEnd { stream: 6, part: 0, error: None });
    rig.until(|rig| rig.ended(6, 1));
    assert_eq!(rig.data(6, 1), b"abc");
    rig.answer(6, 1, BodyKind::Stream(None));
    rig.deliver(ToRunner::BodyData { stream: 6, part: 1, bytes: Bytes::from_static(b"defg") });
    rig.until(|rig| rig.data(6, 0) == b"defg");
    rig.deliver(ToRunner::BodyEnd { stream: 6, part: 1, error: None });
    assert_eq!(rig.finish(6), Outcome::Ok);
    assert_eq!(rig.status(6), 418);
    assert_eq!(rig.response(6).0.headers.get_all("set-cookie").iter().count(), 2);
}

fn a_streamed_request_body_waits_for_credit() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const body = new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(50_000)); if (--left === 0) c.close(); } });
            let left = 4;
            const response = await fetch('https://other.example/', { method: 'POST', body });
            return new Response(response.status);
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.until(|rig| rig.data(1, 1).len() == 65_536);
    rig.deliver(ToRunner::Credit { stream: 1, part: 1, bytes: 200_000 });
    rig.until(|rig| rig.ended(1, 1));
    assert_eq!(rig.data(1, 1).len(), 200_000);
    rig.answer(1, 1, BodyKind::Empty);
    rig.finish(1);
}

fn a_failed_subrequest_is_a_type_error() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            try { await fetch('http://nowhere.example'); } catch (error) { return new Response(`${error.name}: ${error.message}`); }
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.deliver(ToRunner::Fetched {
        stream: 1,
        part: 1,
        result: Err("nowhere.example: no address".into()),
        url: String::new(),
        redirects: 0,
    });
    rig.finish(1);
    assert_eq!(rig.body(1), "TypeError: nowhere.example: no address");
}

fn an_abort_signal_abandons_the_subrequest() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const controller = new AbortController();
            const pending = fetch('https://other.example/', { signal: controller.signal });
            setTimeout(() => controller.abort(), 1);
            try { await pending; } catch (error) { return new Response(error.name); }
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.finish(1);
    assert_eq!(rig.body(1), "AbortError");
    assert!(rig.said().iter().any(|message| matches!(message, ToEdge::Abandon { stream: 1, part: 1 })));
    rig.answer(1, 1, BodyKind::Empty);
}

fn a_timeout_signal_abandons_the_subrequest() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            try { await fetch('https://other.example/', { signal: AbortSignal.timeout(2) }); } catch (error) { return new Response(error.name); }
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.finish(1);
    assert_eq!(rig.body(1), "TimeoutError");
}

fn cancel_rejects_what_is_pending() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            const reader = request.body.getReader();
            const results = await Promise.allSettled([reader.read(), fetch('https://other.example/')]);
            console.log(results.map((result) => result.reason.name).join());
            await fetch('https://other.example/late').catch((error) => console.log(error.message));
         } }",
    );
    rig.start(2, http::Method::POST, "https://example.org/", &[], BodyKind::Stream(None));
    rig.deliver(ToRunner::Cancel { stream: 2, outcome: Outcome::ExceededWallTime });
    assert_eq!(rig.outcome(2), Some(Outcome::ExceededWallTime));
    let lines: Vec<String> = rig.log().into_iter().map(|(_, _, line)| line).collect();
    assert_eq!(lines[0], "AbortError,AbortError");
    assert_eq!(fetches(&rig).len(), 1);
    assert_eq!(rig.log().len(), 2, "{lines:?}");
}

fn fetch_in_global_scope_is_refused() {
    let mut rig = Rig::worker(
        "let text; try { await fetch('https://x.example'); } catch (error) { text = error.message; }
         let timer; try { setTimeout(() => {}, 1); } catch (error) { timer = error.message; }
         export default { fetch() { return new Response(text + timer); } }",
    );
    let text = rig.text("https://example.org/");
    assert_eq!(text.matches("Disallowed operation called within global scope").count(), 2, "{text}");
}

fn too_many_running_subrequests_are_refused() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const all = Array.from({ length: 70 }, () => fetch('https://other.example/').catch((error) => error.message));
            return new Response(await all.at(-1));
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.until(|rig| rig.said().iter().any(|message| matches!(message, ToEdge::Response { .. })));
    assert_eq!(rig.body(1), "more than 64 subrequests are waiting for their answer");
    assert_eq!(fetches(&rig).len(), 64);
}

fn invalid_requests_never_reach_the_edge() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const attempts = [
                ['ftp://x.example/'], ['/relative'], ['https://user:pw@x.example/'], ['https://x.example/', { method: 'CONNECT' }],
                ['https://x.example/', { method: 'A B' }], ['https://x.example/', { body: 'x' }], ['https://x.example/', { redirect: 'up' }],
                ['https://x.example/', { headers: { 'a b': 'c' } }], ['https://x.example/', { headers: { a: 'b\\r\\nc: d' } }],
                ['https://x.example/', { signal: {} }],
            ];
            const names = [];
            for (const attempt of attempts) await fetch(...attempt).catch((error) => names.push(error.name));
            return Response.json([...new Set(names), names.length]);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"["TypeError",10]"#);
    assert!(fetches(&rig).is_empty());
}

fn a_relayed_request_does_not_ask_for_an_encoding() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            const own = new Headers(request.headers);
            own.set('Accept-Encoding', 'br');
            const asked = [request, new Request(request), new Request('https://x.example/', request), request.clone()];
            await Promise.all([...asked.map((request) => fetch(request)), fetch('https://x.example/', { headers: request.headers }),
                               fetch('https://x.example/', { headers: own })]);
         } }",
    );
    rig.start(
        1,
        http::Method::GET,
        "https://example.org/",
        &[("accept-encoding", "gzip"), ("x-a", "1"), ("content-length", "0")],
        BodyKind::Empty,
    );
    let encoding = |head: &RequestHead| head.headers.get("accept-encoding").cloned();
    let encodings: Vec<_> = fetches(&rig).iter().filter_map(|(_, head, ..)| encoding(head)).collect();
    // Only what the worker itself has asked for.
    assert_eq!(encodings, ["br"]);
    assert_eq!(fetches(&rig).len(), 6);
    assert!(fetches(&rig).iter().all(|(_, head, ..)| head.headers["x-a"] == "1" && !head.headers.contains_key("content-length")));
}

fn what_is_wished_of_the_cache_is_not_what_came_with_the_client() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            const wishing = new Request('https://x.example/', { cf: { cacheTtl: 5 } });
            const asked = [[request, { cf: { cacheTtl: 5 } }], [wishing], [wishing.clone()], [new Request(wishing, { headers: {} })],
                           ['https://x.example/', wishing],
                           [request], [new Request('https://x.example/', request)], ['https://x.example/', { cf: request.cf }],
                           [wishing, request]];
            console.log(asked.map(([input]) => new Request(input).cf === undefined).join());
            await Promise.all(asked.map((one) => fetch(...one)));
         } }",
    );
    rig.get(1, "https://example.org/");
    let wished: Vec<bool> = rig
        .said()
        .iter()
        .filter_map(|message| if let ToEdge::Fetch { cache, .. } = message { Some(cache.is_some()) } else { None })
        .collect();
    assert_eq!(wished, [true, true, true, true, true, false, false, false, false]);
    let lines: Vec<String> = rig.log().into_iter().map(|(_, _, line)| line).collect();
    assert_eq!(lines.len(), 1, "nothing is warned of: {lines:?}");
}
