//! A request that is not answered as asked, with status and reason (PS3.18 8.5, 8.6.3).
//!
//! The texts name parameters and headers, never their values. An error page must not return text
//! that somebody else put into a link.

use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::body::Body;
use crate::qr::FindError;

/// The reason, and its status.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) why: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Time that a request waits for its turn, as to query the index. After it the answer is a 503. A
/// browser gives up later.
pub(super) const WAIT_FOR_TURN: Duration = Duration::from_secs(10);

/// Seconds after which a client may try again if all places are taken.
const TRY_AGAIN_AFTER: u64 = 2;

impl Problem {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), headers: Vec::new() }
    }

    /// Returns a problem with status 400.
    pub(super) fn bad_request(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }

    /// Returns a problem with status 404.
    pub(super) fn not_found(why: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, why)
    }

    /// Returns status 503 for want of places or memory for frames.
    pub(super) fn decoders_are_busy() -> Self {
        Self::busy("many frames are being decompressed; try again")
    }

    /// Returns status 406 with the reason of the decoder.
    pub(super) fn not_decompressed(error: &dyn std::fmt::Display) -> Self {
        let why = format!("not decompressed: {error}; the frames can be retrieved as stored");
        Self::new(StatusCode::NOT_ACCEPTABLE, why)
    }

    /// Returns a problem with status 503, for which another try is worthwhile.
    pub(super) fn busy(why: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why).with(RETRY_AFTER, HeaderValue::from(TRY_AGAIN_AFTER))
    }

    /// Returns a problem with status 500. The details are only in our log.
    pub(super) fn ours() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the node could not answer; its log says why")
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Returns the response for the problem.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(format!("{}\n", self.why)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

/// No `_` arm: a new error has to be given its status here.
impl From<FindError> for Problem {
    fn from(error: FindError) -> Self {
        if let FindError::Index(cause) = &error
            && error.is_ours()
        {
            tracing::error!(error = %cause, "a request over HTTP failed: the index could not answer");
        }
        match error {
            FindError::TimeLimit | FindError::TooManyMatches(_) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the search took too long: narrow it by a date, a patient or a study, or ask for fewer with limit",
            ),
            FindError::NoRoom => Self::busy("results were not taken, and there is no room for them to wait"),
            // Nobody reads this answer.
            FindError::Cancelled => Self::bad_request("the search was cancelled"),
            FindError::Index(_) | FindError::AnswersLost => Self::ours(),
            FindError::Identifier(_)
            | FindError::MissingLevel
            | FindError::UnknownLevel
            | FindError::LevelNotInModel { .. }
            | FindError::UniqueKeyAbove(_)
            | FindError::KeyOfOtherLevel(_)
            // The next two are of Repository Queries, which are not asked over HTTP.
            | FindError::ResponseLimit
            | FindError::InvalidPriorRecordKey
            | FindError::InvalidKey(..) => Self::bad_request(error.to_string()),
        }
    }
}

/// Logs that the body of a response ends too early. The client sees that it is broken off.
pub(super) fn breaks_off(what: &str, error: &dyn std::fmt::Display) {
    tracing::warn!(%error, "a retrieval over HTTP breaks off: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    // PS3.18 table 10.6.3-1.
    #[test]
    fn a_search_that_takes_too_long_is_413_and_says_what_to_do() {
        let problem = Problem::from(FindError::TimeLimit);
        assert!(
            problem.status == StatusCode::PAYLOAD_TOO_LARGE && problem.why.contains("narrow it"),
            "{}",
            problem.why
        );
    }
}
