//! Sends the files of OHIF to a browser. `ohif` describes the files.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::Response;
use hyper::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION,
};
use tokio::task::spawn_blocking;

use super::body::Body;
use super::http_state::{Call, HttpState};
use super::ohif::{Entry, is_hashed, media_type};
use super::problem::Problem;
use super::query::decode;

/// Number of bytes of a file that go out together.
const PIECE_BYTES: usize = 256 << 10;

/// Answers with a file of OHIF, or with its first page for paths of its own.
pub(super) async fn answer(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let none = || Problem::not_found("OHIF is not served here; the option --ohif names its folder");
    let ohif = server.ohif.as_ref().ok_or_else(none)?;
    let path = decode(call.route.parameter("path")).unwrap_or_default().into_owned();
    if call.path == "/ohif" {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = hyper::StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/ohif/"));
        return Ok(response);
    }
    let (mut response, name) = match ohif.files.get(&path) {
        Some(Entry::Rewritten(bytes)) => (Response::new(Body::from(bytes.clone())), path.as_str()),
        Some(Entry::OnDisk(file)) => (send(server, call, file.clone()).await?, path.as_str()),
        // A missing file is a 404. Every other path is a page of the viewer.
        None if path != "index.html" && path.rsplit('/').next().is_some_and(|name| name.contains('.')) => {
            return Err(Problem::not_found("OHIF has no such file"));
        }
        None => (Response::new(Body::from(ohif.index.clone())), "index.html"),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(name)));
    let caching = if is_hashed(name) { "private, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(CONTENT_SECURITY_POLICY, ohif.policy.clone());
    // Volumes are in a SharedArrayBuffer. Browsers only allow it for pages that are alone in their
    // process.
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(response)
}

async fn send(server: &Arc<HttpState>, call: &Call<'_>, path: PathBuf) -> Result<Response<Body>, Problem> {
    let (outlet, body) = server.written_body(&call.peer).await?;
    let opened = spawn_blocking(move || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        // The outlet holds the turn of this thread, even if the client has gone.
        Ok::<_, std::io::Error>((file, length, outlet))
    });
    let opened = opened.await.map_err(|_| Problem::ours())?;
    let (mut file, length, mut outlet) = opened.map_err(|error| {
        tracing::warn!(%error, "a file of OHIF cannot be read");
        Problem::not_found("OHIF does not have this file any more")
    })?;
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    spawn_blocking(move || {
        let mut left = length;
        let mut buffer = vec![0; PIECE_BYTES];
        while left > 0 {
            let wanted = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            let space = buffer.get_mut(..wanted).unwrap_or_default();
            if file.read_exact(space).is_err() || outlet.send(space.to_vec()).is_break() {
                return;
            }
            left -= wanted as u64;
        }
        outlet.end();
    });
    Ok(response)
}
