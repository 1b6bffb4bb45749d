//! Sends a request to the upstream of its route.

use http::header::{CONTENT_LENGTH, EXPECT};
use http::{Request, Response, Version};
use http_body::Body as HttpBody;
use selvedge_runtime::Body;

use super::RequestPath;
use super::context::CDN_LOOP;
use super::error::RequestError;
use super::fields;
use super::trail::Trail;
use crate::metrics::Source;
use crate::upstream::{Group, OnInterim, Reach, UpstreamError};

/// Forwards: fields of the hop taken off, who asks written anew, passage marked.
pub(super) async fn get(
    path: &RequestPath,
    mut request: Request<Body>,
    upstream: &Group,
    trail: &Trail,
) -> Result<Response<Body>, RequestError> {
    fields::identify(request.headers_mut(), &trail.context);
    fields::mark_passage(request.headers_mut(), &trail.context, path.via());
    // The listener has answered it, or will when the body is read.
    request.headers_mut().remove(EXPECT);
    if request.body().is_end_stream() && request.headers().get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        request.headers_mut().remove(CONTENT_LENGTH);
    }
    *request.version_mut() = Version::HTTP_11;
    hear_interim(&mut request, trail);
    trail.served_from(Source::Upstream);
    let mut response = path.upstreams().ask(upstream, trail.context.asked(), request).await?;
    fields::clean(response.headers_mut());
    Ok(response)
}

/// Passes interim responses on (RFC 9110, section 15.2), where whoever asks us can have them.
pub(super) fn hear_interim<B>(request: &mut Request<B>, trail: &Trail) {
    if trail.interim.is_heard() {
        let interim = trail.interim.clone();
        request.extensions_mut().insert(OnInterim::new(move |status, headers| interim.send(status, headers.clone())));
    }
}

/// Asks the rest of the world for a worker: nothing of who asks the worker goes there, only that it came through here (RFC 8586).
pub(super) async fn outside(path: &RequestPath, mut request: Request<Body>, trail: &Trail) -> Result<Response<Body>, RequestError> {
    let context = &trail.context;
    let address = format!("{}://{}{}", context.scheme(), context.authority, context.asked());
    *request.uri_mut() = address.parse().map_err(|_| UpstreamError::BadRequest { reason: "no address" })?;
    // How often the worker's own request has passed through already.
    if let Some(onward) = &context.cdn_loop {
        request.headers_mut().insert(CDN_LOOP, onward.clone());
    }
    let mut response = path.upstreams().send(request, Reach::Worker).await?;
    fields::strip_hop(response.headers_mut());
    Ok(response)
}
