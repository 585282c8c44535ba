//! The web chat, embedded in the binary and served at `/`.

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};
use include_dir::{Dir, include_dir};

/// The page's folders. What else lies beside them (tests, packages, settings of tools) is not in the binary.
static FOLDERS: [(&str, Dir<'static>); 3] = [
    ("client", include_dir!("$CARGO_MANIFEST_DIR/web/client")),
    ("style", include_dir!("$CARGO_MANIFEST_DIR/web/style")),
    ("ui", include_dir!("$CARGO_MANIFEST_DIR/web/ui")),
];

/// The page's files outside of folders.
static FILES: [(&str, &[u8]); 4] = [
    ("app.webmanifest", include_bytes!("../web/app.webmanifest")),
    ("icon.svg", include_bytes!("../web/icon.svg")),
    ("index.html", include_bytes!("../web/index.html")),
    ("theme.js", include_bytes!("../web/theme.js")),
];

/// What a page of ours may do: nothing but itself and pictures from https; text cannot become HTML.
const POLICY: &str = "default-src 'self'; img-src 'self' https: data:; object-src 'none'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'";

/// The page's files, for every path that is nothing else.
pub fn routes() -> Router {
    Router::new().fallback(file)
}

async fn file(request: Request) -> Response {
    let path = match request.uri().path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let Some(contents) = contents(path) else { return StatusCode::NOT_FOUND.into_response() };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response();
    }
    // The binary's version and the file's length do not tell a changed file of a development build: its hash does.
    let etag = format!("\"{:016x}\"", hash(contents));
    let headers = [
        (header::CONTENT_TYPE, content_type(path)),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let known = request.headers().get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes());
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { (headers, contents).into_response() };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn contents(path: &str) -> Option<&'static [u8]> {
    match path.split_once('/') {
        Some((folder, path)) => FOLDERS.iter().find(|(name, _)| *name == folder)?.1.get_file(path).map(|file| file.contents()),
        None => FILES.iter().find(|(name, _)| *name == path).map(|(_, contents)| *contents),
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// FNV-1a: <http://www.isthe.com/chongo/tech/comp/fnv/>.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use tower::ServiceExt;

    async fn get(path: &str) -> Response {
        routes().oneshot(Request::builder().uri(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn the_page_and_all_that_it_names_is_served_under_a_strict_policy() {
        let page = String::from_utf8(contents("index.html").unwrap().to_vec()).unwrap();
        let named = page.split('"').filter(|text| text.rsplit_once('.').is_some_and(|(_, end)| ["css", "js", "svg", "webmanifest"].contains(&end)));
        let paths: Vec<String> = named.map(|path| format!("/{path}")).chain(["/".to_owned(), "/client/index.js".to_owned()]).collect();
        assert!(paths.len() > 6, "{paths:?}");
        for path in paths {
            let answer = get(&path).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            assert_eq!(answer.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
            assert_ne!(answer.headers()[header::CONTENT_TYPE], "application/octet-stream", "{path}");
        }
        assert!(!POLICY.contains("unsafe"));
    }

    #[tokio::test]
    async fn what_belongs_to_the_sources_only_is_not_there() {
        for path in [
            "/package.json",
            "/package-lock.json",
            "/tsconfig.json",
            "/test/outbox.test.js",
            "/node_modules/typescript/package.json",
            "/client",
            "/../src/web.rs",
        ] {
            assert_eq!(get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[tokio::test]
    async fn a_file_that_the_browser_has_is_not_sent_again() {
        let etag = get("/theme.js").await.headers()[header::ETAG].clone();
        let request = Request::builder().uri("/theme.js").header(header::IF_NONE_MATCH, etag).body(Body::empty()).unwrap();
        assert_eq!(routes().oneshot(request).await.unwrap().status(), StatusCode::NOT_MODIFIED);
    }
}
