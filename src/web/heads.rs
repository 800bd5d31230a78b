//! Heads of responses that several resources have.

use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::body::Body;
use super::call::Call;
use super::problem::Problem;
use super::resource::SERVICE;
use super::search::warn;

/// Returns a response with this body and Content-Type.
pub(super) fn typed(body: Body, content_type: &str) -> Result<Response<Body>, Problem> {
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_str(content_type).map_err(|_| Problem::ours())?;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// Adds a warning with the number of objects that are left out.
pub(super) fn warn_of_missing(response: &mut Response<Body>, call: &Call<'_>, count: usize) {
    if count > 0 {
        let text = format!("{count} instances are left out: their objects are not at hand");
        warn(response.headers_mut(), &format!("{}{SERVICE}", call.base), &text);
    }
}
