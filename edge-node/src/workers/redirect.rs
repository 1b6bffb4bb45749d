//! What a worker's `fetch()` sends after a redirect (the Fetch standard, "HTTP-redirect fetch").

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, COOKIE, HeaderMap, LOCATION,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use selvedge_runtime::Body;

/// What of a request is sent again after a redirect.
pub(super) struct Resend {
    method: Method,
    from: Uri,
    headers: HeaderMap,
    body: Option<bytes::Bytes>,
}

impl Resend {
    pub(super) fn of(request: &Request<Body>) -> Option<Self> {
        let (method, from) = (request.method().clone(), request.uri().clone());
        Some(Self { method, from, headers: request.headers().clone(), body: request.body().as_whole() })
    }

    /// 303 becomes GET, and so does a POST by 301 or 302; the credentials of one origin are not another's. None: the body
    /// was a stream, and is gone.
    pub(super) fn to(mut self, next: Uri, status: StatusCode) -> Option<Request<Body>> {
        let to_get = match status.as_u16() {
            303 => self.method != Method::GET && self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if to_get {
            self.method = Method::GET;
            self.body = Some(bytes::Bytes::new());
            for name in [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, CONTENT_LENGTH] {
                self.headers.remove(name);
            }
        }
        if next.scheme() != self.from.scheme() || next.authority() != self.from.authority() {
            for name in [AUTHORIZATION, COOKIE] {
                self.headers.remove(name);
            }
        }
        let mut request = Request::new(Body::full(self.body?));
        *request.method_mut() = self.method;
        *request.uri_mut() = next;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}

/// Where a response redirects to.
pub(super) fn redirection(response: &Response<Body>) -> Option<&HeaderValue> {
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308).then(|| response.headers().get(LOCATION)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_change_method_and_keep_credentials_at_home() {
        let request = |method: &str| {
            let builder =
                Request::builder().method(method).uri("https://a.org/").header("authorization", "s").header("content-type", "a/b");
            Resend::of(&builder.body(Body::full("body")).expect("a request")).expect("it")
        };
        let next = Uri::from_static("https://b.org/");
        let sent = request("POST").to(next.clone(), StatusCode::FOUND).expect("it");
        assert_eq!((sent.method(), sent.headers().len()), (&Method::GET, 0));
        let sent = request("PUT").to(Uri::from_static("https://a.org/x"), StatusCode::TEMPORARY_REDIRECT).expect("it");
        assert_eq!((sent.method(), sent.headers().len(), sent.body().as_whole().expect("whole").len()), (&Method::PUT, 2, 4));
        let sent = request("PUT").to(next, StatusCode::SEE_OTHER).expect("it");
        assert_eq!(sent.method(), Method::GET);
    }
}
