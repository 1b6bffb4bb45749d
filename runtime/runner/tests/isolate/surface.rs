//! The web APIs that workers get.

use crate::rig::Rig;

crate::tests![
    every_interface_of_the_minimum_common_api_is_there,
    headers_are_validated_and_guarded,
    responses_follow_fetch,
    requests_follow_fetch,
    crypto_works_and_its_continuations_belong_to_the_invocation,
    crypto_in_helper_threads_is_bounded,
    message_channels_deliver,
    blobs_are_read,
    urls_and_patterns_work,
    structured_clone_and_events_work,
    console_shows_our_classes,
];

fn every_interface_of_the_minimum_common_api_is_there() {
    let mut rig = Rig::worker(
        "const names = `AbortController AbortSignal Blob ByteLengthQueuingStrategy CompressionStream CountQueuingStrategy Crypto CryptoKey
            CustomEvent DecompressionStream DOMException ErrorEvent Event EventTarget File FormData Headers MessageChannel MessageEvent
            MessagePort Performance PromiseRejectionEvent ReadableByteStreamController ReadableStream ReadableStreamBYOBReader
            ReadableStreamBYOBRequest ReadableStreamDefaultController ReadableStreamDefaultReader Request Response SubtleCrypto TextDecoder
            TextDecoderStream TextEncoder TextEncoderStream TransformStream TransformStreamDefaultController URL URLPattern URLSearchParams
            WebAssembly WritableStream WritableStreamDefaultController WritableStreamDefaultWriter globalThis atob btoa setTimeout
            clearTimeout setInterval clearInterval console crypto fetch navigator onerror onunhandledrejection onrejectionhandled
            performance queueMicrotask reportError self structuredClone scheduler FixedLengthStream IdentityTransformStream`;
         export default { fetch() {
            return Response.json([names.split(/\\s+/).filter((name) => !(name in globalThis)), navigator.userAgent, self === globalThis,
                                  globalThis instanceof EventTarget]);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"[[],"Selvedge",true,true]"#);
}

fn headers_are_validated_and_guarded() {
    let mut rig = Rig::worker(
        "const refused = (f) => { try { f(); return false; } catch (error) { return error instanceof TypeError; } };
         export default { fetch(request) {
            const headers = new Headers([['B', '2'], ['a', ' 1 '], ['b', '3'], ['Set-Cookie', 'x=1'], ['set-cookie', 'y=2']]);
            headers.set('c', '4'); headers.append('C', '5'); headers.set('b', '6'); headers.delete('A');
            const all = [...headers].join(';');
            return Response.json([all, headers.getSetCookie(), headers.get('set-cookie'), headers.has('A'), new Headers({ x: 'y' }).get('X'),
                new Headers(headers).get('c'),
                [() => headers.set('a b', 'c'), () => headers.set('a', 'b\\nc'), () => headers.append('ü', 'x'), () => headers.set('a', 'ŀ'),
                 () => headers.get(''), () => new Headers([['a']]), () => new Headers(1), () => request.headers.set('a', 'b'),
                 () => Response.redirect('https://x.example/').headers.set('a', 'b'), () => Headers.prototype.get.call({}, 'a')].map(refused)]);
         } }",
    );
    assert_eq!(
        rig.text("https://example.org/"),
        r#"["b,6;c,4, 5;set-cookie,x=1;set-cookie,y=2",["x=1","y=2"],"x=1, y=2",false,"y","4, 5",[true,true,true,true,true,true,true,true,true,true]]"#
    );
}

fn responses_follow_fetch() {
    let mut rig = Rig::worker(
        "const name = (f) => { try { f(); return null; } catch (error) { return error.name; } };
         export default { async fetch() {
            const redirect = Response.redirect('https://x.example/a', 307);
            const json = Response.json({ a: 1 }, { status: 201, headers: { 'content-type': 'application/x+json' } });
            return Response.json([redirect.status, redirect.headers.get('location'), json.status, json.headers.get('content-type'), await json.text(),
                new Response(null, { status: 204 }).body, new Response('x', { headers: { 'content-type': 'a/b' } }).headers.get('content-type'),
                new Response(new Uint8Array([1])).headers.get('content-type'), Response.error().type, new Response('').ok,
                [name(() => new Response('x', { status: 204 })), name(() => new Response('', { status: 101 })), name(() => new Response('', { status: 600 })),
                 name(() => new Response('', { statusText: 'a\\nb' })), name(() => Response.redirect('https://x.example/', 200)),
                 name(() => Response.json(() => {})), name(() => new Response(1n))]]);
         } }",
    );
    assert_eq!(
        rig.text("https://example.org/"),
        r#"[307,"https://x.example/a",201,"application/x+json","{\"a\":1}",null,"a/b",null,"error",true,["TypeError","RangeError","RangeError","TypeError","RangeError","TypeError",null]]"#
    );
}

fn requests_follow_fetch() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            const post = new Request('https://x.example/a', { method: 'POST', body: 'b', headers: { a: '1' } });
            const moved = new Request(post, { headers: { b: '2' } });
            const onto = new Request('https://y.example/', request);
            return Response.json([moved.method, await moved.text(), post.bodyUsed, moved.headers.get('a'), moved.headers.get('b'),
                moved.headers.get('content-type'), onto.url, onto.method, onto.headers.get('x-in'), onto.cf.httpProtocol,
                new Request(request).headers.get('x-in'), request.signal instanceof AbortSignal, new Request('https://x.example').signal.aborted]);
         } }",
    );
    rig.start(1, http::Method::GET, "https://example.org/", &[("x-in", "yes")], selvedge_runtime::protocol::BodyKind::Empty);
    rig.finish(1);
    assert_eq!(rig.body(1), r#"["POST","b",true,null,"2",null,"https://y.example/","GET","yes","HTTP/3","yes",true,false]"#);
}

fn crypto_works_and_its_continuations_belong_to_the_invocation() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode('abc')));
            const key = await crypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, true, ['sign', 'verify']);
            const signature = await crypto.subtle.sign('HMAC', key, digest);
            console.log('after');
            const { privateKey, publicKey } = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign', 'verify']);
            const ecdsa = { name: 'ECDSA', hash: 'SHA-256' };
            const signed = await crypto.subtle.sign(ecdsa, privateKey, digest);
            let refused = false;
            try { await crypto.subtle.digest('MD4', digest); } catch { refused = true; }
            return Response.json([digest[0], await crypto.subtle.verify('HMAC', key, signature, digest), crypto.randomUUID().length,
                new Set(crypto.getRandomValues(new Uint32Array(4))).size > 1, key instanceof CryptoKey, await crypto.subtle.verify(ecdsa, publicKey, signed, digest),
                crypto.subtle.timingSafeEqual(digest, digest), refused]);
         } }",
    );
    rig.get(8, "https://example.org/");
    rig.finish(8);
    assert_eq!(rig.body(8), r#"[186,true,36,true,true,true,true,true]"#);
    assert_eq!(rig.log()[0].0, 8);
    // The line was said in a turn of the invocation, not in one of the engine's.
    let seen = rig.seen();
    let line = seen.iter().position(|seen| format!("{seen:?}").contains("after")).expect("the line");
    assert!(matches!(seen[..line].iter().rev().find(|seen| matches!(seen, crate::rig::Seen::Ran(_))), Some(crate::rig::Seen::Ran(8))));
}

fn message_channels_deliver() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const { port1, port2 } = new MessageChannel();
            const got = new Promise((resolve) => { port1.onmessage = (event) => resolve(event.data); });
            port2.postMessage({ a: [1] });
            const data = await got;
            port1.close();
            return Response.json(data);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"{"a":[1]}"#);
}

fn blobs_are_read() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const blob = new Blob(['ab', new Uint8Array([99]), new Blob(['d'])], { type: 'text/x' });
            const sliced = await blob.slice(1, 3).text();
            const response = new Response(blob);
            const streamed = await new Response(blob.stream()).text();
            return Response.json([blob.size, await blob.text(), sliced, response.headers.get('content-type'), await response.text(), streamed,
                                  (await new Response('x', { headers: { 'content-type': 'a/b' } }).blob()).type]);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"[4,"abcd","bc","text/x","abcd","abcd","a/b"]"#);
    assert!(rig.isolate.heap().used > 0);
}

fn urls_and_patterns_work() {
    let mut rig = Rig::worker(
        "export default { fetch(request) {
            const url = new URL('../x?y=ü', 'https://example.org/a/b/');
            const match = new URLPattern({ pathname: '/items/:id' }).exec('https://example.org/items/7');
            return Response.json([url.href, match.pathname.groups.id, atob(btoa('hi')), new TextDecoder('latin1').decode(new Uint8Array([228]))]);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"["https://example.org/a/x?y=%C3%BC","7","hi","ä"]"#);
}

fn structured_clone_and_events_work() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const original = { map: new Map([[1, new Date(5)]]), bytes: new Uint8Array([1, 2]) };
            const copy = structuredClone(original, { transfer: [original.bytes.buffer] });
            let seen = 0;
            const target = new EventTarget();
            target.addEventListener('x', (event) => { seen = event.detail; }, { once: true });
            target.dispatchEvent(new CustomEvent('x', { detail: 3 }));
            const any = AbortSignal.any([AbortSignal.abort('why'), new AbortController().signal]);
            return Response.json([copy.map.get(1).getTime(), copy.bytes.length, original.bytes.length, seen, any.reason]);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"[5,2,0,3,"why"]"#);
}

fn console_shows_our_classes() {
    let mut rig = Rig::worker(
        "export default { fetch(request) {
            console.log(new Headers({ a: 'b' }), new Response(null, { status: 201 }).status, '%s is %d', 'x', 1);
            console.debug(request);
            console.table([{ a: 1 }]);
            console.count();
            console.group('g'); console.info('inside'); console.groupEnd();
            console.log('x'.repeat(100_000));
            return new Response();
         } }",
    );
    rig.get(1, "https://example.org/");
    let log = rig.log();
    let lines: Vec<&str> = log.iter().map(|(_, _, line)| line.as_str()).collect();
    assert!(lines[0].starts_with("Headers { a: 'b' } 201") || lines[0].starts_with("Headers { a: \"b\" } 201"), "{}", lines[0]);
    assert!(lines[1].starts_with("Request {") && lines[1].contains("https://example.org/"), "{}", lines[1]);
    assert!(lines[2].contains('│'), "{}", lines[2]);
    assert_eq!(lines[3], "default: 1");
    assert_eq!(lines[5].trim_start(), "inside");
    assert!(lines[6].len() < 17_000);
}

fn crypto_in_helper_threads_is_bounded() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const names = [];
            const key = await crypto.subtle.importKey('raw', new Uint8Array(8), 'PBKDF2', false, ['deriveBits', 'deriveKey']);
            const derive = (iterations) => crypto.subtle.deriveBits({ name: 'PBKDF2', hash: 'SHA-256', salt: new Uint8Array(8), iterations }, key, 128);
            names.push((await derive(100_000)).byteLength);
            await derive(100_001).catch((error) => names.push(error.name));
            let reads = 0;
            await crypto.subtle.deriveBits({ name: 'PBKDF2', hash: 'SHA-256', salt: new Uint8Array(8), get iterations() { return ++reads > 1 ? 1e9 : 1; } }, key, 128);
            const rsa = { name: 'RSA-PSS', modulusLength: 16384, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' };
            await crypto.subtle.generateKey(rsa, true, ['sign']).catch((error) => names.push(error.name));
            return Response.json(names);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"[16,"NotSupportedError","NotSupportedError"]"#);
}
