//! The request that an operator asks about, as a listener would have it.

use std::net::{Ipv4Addr, SocketAddr};

use http::{HeaderName, HeaderValue, Method, Request, Uri};
use selvedge_origin::api::wire::ExplainAsk;
use selvedge_runtime::Body;

use crate::listen::{Connection, Protocol, TlsInfo};
use crate::request::context::Context;

/// The request, from nobody: it has no client's address, and no proxy is trusted. Or what is wrong with it.
pub(super) fn request(ask: &ExplainAsk) -> Result<(Request<()>, Context), String> {
    let url = ask.url.split_once('#').map_or(ask.url.as_str(), |(url, _)| url);
    let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let uri: Uri = url.parse().map_err(|error| format!("the URL: {error}"))?;
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("the URL: the scheme is http or https".to_owned()),
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(ask.method.as_bytes()).map_err(|_| "the method is none".to_owned())?;
    *request.uri_mut() = uri;
    for (name, value) in &ask.headers {
        let wrong = |what: &str| format!("the {what} of header field {:?} cannot be one", name.chars().take(80).collect::<String>());
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("name"))?;
        let value = HeaderValue::from_str(value).map_err(|_| wrong("value"))?;
        request.headers_mut().try_append(name, value).map_err(|_| "too many header fields".to_owned())?;
    }
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let tls = secure.then_some(TlsInfo { version: "TLSv1.3", server_name: None, node: None });
    let connection = Connection { peer: nowhere, protocol: Protocol::Http1, tls };
    let context = Context::of_client(&request, &connection, &[]);
    Ok((request, context))
}

/// A copy with its body, which is empty.
pub(super) fn whole(request: &Request<()>) -> Request<Body> {
    request.clone().map(|()| Body::empty())
}

/// For tests/fuzz: any bytes as a request to be explained.
pub(crate) fn fuzz(bytes: &[u8]) {
    let parsed = serde_json::from_slice(bytes).ok().or_else(|| {
        // Beyond JSON: the URL, the method, and fields, a line each.
        let mut lines = std::str::from_utf8(bytes).ok()?.split('\n').map(str::to_owned);
        let (url, method) = (lines.next()?, lines.next().unwrap_or_else(|| "GET".to_owned()));
        Some(ExplainAsk { url, method, headers: lines.map(|line| (line.clone(), line)).collect() })
    });
    if let Some((request, context)) = parsed.and_then(|ask: ExplainAsk| request(&ask).ok()) {
        assert!(request.uri().authority().is_some(), "a URL with a scheme has one");
        let _ = context.check();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str, headers: &[(&str, &str)]) -> Result<String, String> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (_, context) = request(&ExplainAsk { url: url.to_owned(), method: "GET".to_owned(), headers })?;
        context.check().map_err(|error| error.to_string())?;
        Ok(format!("{} {} {}", context.scheme(), context.authority, context.target))
    }

    #[test]
    fn what_is_asked_about_is_spelled_as_a_request_is() {
        assert_eq!(asked("https://A.org:443/x?y#z", &[]).as_deref(), Ok("https a.org /x?y"));
        assert_eq!(asked("A.org", &[("Accept", "*/*")]).as_deref(), Ok("https a.org /"));
        assert_eq!(asked("http://a.org:8080/", &[]).as_deref(), Ok("http a.org:8080 /"));
        for (url, headers, word) in [
            ("ftp://a.org/", &[][..], "scheme"),
            ("https://", &[], "URL"),
            ("https://a.org/../x", &[], "segments"),
            ("https://a.org/", &[("a b", "c")], "name of header"),
            ("https://a.org/", &[("a", "b\r\nc: d")], "value of header"),
            ("https://a.org/", &[("host", "b.org")], "different hosts"),
        ] {
            let refused = asked(url, headers).expect_err(word);
            assert!(refused.contains(word), "{refused}");
        }
    }
}
