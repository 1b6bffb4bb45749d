//! Web cache deception: an attacker sends a victim to `/account/x.css`, the upstream ignores the end of the path and answers with the victim's account, and a cache that
//! goes by the path stores it for the attacker. What ends like a file of one type and has another is not stored. Pure.

use http::header::{CONTENT_TYPE, HeaderMap};

/// Endings of files that nobody makes for one user, and the types that they may have: the part before the slash, or all of it. Images may come in any image type
/// (conversion on the fly is usual), scripts in any of their many names.
const ENDINGS: [(&[&str], &[&str]); 7] = [
    (&["css"], &["text/css"]),
    (&["js", "mjs", "cjs"], &["javascript", "ecmascript", "x-javascript"]),
    (&["png", "jpg", "jpeg", "gif", "webp", "avif", "ico", "bmp", "svg", "tif", "tiff", "jxl"], &["image"]),
    (&["woff", "woff2", "ttf", "otf", "eot"], &["font", "application"]),
    (&["mp4", "webm", "mov", "m4v", "ogv", "ts", "m4s"], &["video", "audio", "application"]),
    (&["mp3", "ogg", "wav", "flac", "m4a", "aac"], &["audio", "video", "application"]),
    (&["zip", "gz", "tgz", "bz2", "xz", "7z", "rar", "iso", "exe", "msi", "dmg", "deb", "rpm", "pdf", "wasm"], &["application"]),
];

/// Types of pages and of what APIs say, wherever they come from.
const PAGES: [&str; 4] = ["text/html", "application/xhtml+xml", "application/json", "application/ld+json"];

/// Whether a response to a request of this path looks like something else than its path says. Without a type, or with one of no meaning, it does not.
pub fn differs(path: &str, headers: &HeaderMap) -> bool {
    let Some(allowed) = ending(path) else { return false };
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if PAGES.contains(&kind.as_str()) {
        return true;
    }
    if matches!(kind.as_str(), "" | "text/plain" | "application/octet-stream" | "binary/octet-stream") {
        return false;
    }
    let (major, minor) = kind.split_once('/').unwrap_or((&kind, ""));
    !allowed.iter().any(|allowed| *allowed == kind || *allowed == major || *allowed == minor)
}

/// What files that end like this path may be. The end is after the last dot of the last segment, also where that is behind an encoded slash, `;` or `?`: those are what
/// caches and servers disagree on.
fn ending(path: &str) -> Option<&'static [&'static str]> {
    let (_, end) = path.rsplit_once('.')?;
    if end.len() > 5 || !end.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let end = end.to_ascii_lowercase();
    ENDINGS.iter().find(|(ends, _)| ends.contains(&end.as_str())).map(|(_, kinds)| *kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_page_behind_the_name_of_a_file_is_seen() {
        for (path, kind, expected) in [
            ("/account/x.css", "text/html; charset=utf-8", true),
            ("/account%2Fx.css", "text/html", true),
            ("/account;x.JS", "application/json", true),
            ("/account/x.png", "text/html", true),
            ("/account/x.png", "text/css", true),
            ("/a.css", "Text/CSS", false),
            ("/a.js", "application/javascript", false),
            ("/a.mjs", "text/javascript; charset=utf-8", false),
            ("/a.png", "image/webp", false),
            ("/a.woff2", "application/font-woff2", false),
            ("/a.pdf", "application/pdf", false),
            ("/a.css", "text/plain", false),
            ("/a.zip", "application/octet-stream", false),
            ("/account", "text/html", false),
            ("/a.html", "text/html", false),
            ("/a.json", "application/json", false),
            ("/v1.2/x", "text/html", false),
        ] {
            let headers: HeaderMap = [(CONTENT_TYPE, HeaderValue::from_static(kind))].into_iter().collect();
            assert_eq!(differs(path, &headers), expected, "{path} {kind}");
        }
        assert!(!differs("/a.css", &HeaderMap::new()));
    }
}
