//! Range (RFC 9110 14.2), for responses that are one run of bytes whose length is known.

use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use hyper::{Response, StatusCode};

use super::access::single;
use super::body::Body;
use super::problem::Problem;

/// The bytes of a response that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selected {
    All,
    /// The bytes from the first to the last of these, both included.
    Part {
        first: u64,
        last: u64,
    },
}

/// Bytes of `length` that the headers of a request select.
///
/// These responses have no validator, so no `If-Range` matches and all is sent (RFC 9110 13.1.5).
pub(super) fn selected_by(headers: &HeaderMap, length: u64) -> Result<Selected, Problem> {
    let range = if headers.contains_key(IF_RANGE) { None } else { single(headers, &RANGE) };
    selected(range, length)
}

/// Bytes of `length` that a Range header selects. Several ranges, other units and unreadable
/// headers select all. RFC 9110 14.2 allows this, and lists of overlapping ranges have felled
/// servers.
fn selected(header: Option<&str>, length: u64) -> Result<Selected, Problem> {
    let spec = header.and_then(|header| header.trim().split_once('='));
    let spec = spec.filter(|(unit, _)| unit.eq_ignore_ascii_case("bytes")).and_then(|(_, spec)| spec.split_once('-'));
    let Some((first, last)) = spec else { return Ok(Selected::All) };
    // A number that is too great for us is too great for the content as well.
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (first, last) = match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            Some(0) => return Err(unsatisfiable(length)),
            Some(count) => (length.saturating_sub(count), length.saturating_sub(1)),
            None => return Ok(Selected::All),
        },
        (first, "") => match number(first) {
            Some(first) => (first, length.saturating_sub(1)),
            None => return Ok(Selected::All),
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first, last.min(length.saturating_sub(1))),
            _ => return Ok(Selected::All),
        },
    };
    if first >= length {
        return Err(unsatisfiable(length));
    }
    Ok(Selected::Part { first, last })
}

fn unsatisfiable(length: u64) -> Problem {
    let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "the range begins behind the last byte");
    match HeaderValue::from_str(&format!("bytes */{length}")) {
        Ok(value) => problem.with(CONTENT_RANGE, value),
        Err(_) => problem,
    }
}

/// Adds the headers for the part that is sent.
pub(super) fn add_range(response: &mut Response<Body>, part: Selected, length: Option<u64>) {
    let Some(length) = length else { return };
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let sent = match part {
        Selected::All => length,
        Selected::Part { first, last } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            if let Ok(range) = HeaderValue::from_str(&format!("bytes {first}-{last}/{length}")) {
                response.headers_mut().insert(CONTENT_RANGE, range);
            }
            last - first + 1
        }
    };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(sent));
}

/// The part of a stream of bytes that is sent.
pub(super) struct Window {
    position: u64,
    first: u64,
    /// Offset of the first byte that is not sent any more.
    end: u64,
}

impl Window {
    pub(super) fn of(part: Selected) -> Self {
        match part {
            Selected::All => Self { position: 0, first: 0, end: u64::MAX },
            Selected::Part { first, last } => Self { position: 0, first, end: last + 1 },
        }
    }

    /// Returns the part of the next bytes that is sent.
    pub(super) fn cut<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (start, after) = (self.position, self.position + bytes.len() as u64);
        self.position = after;
        let from = self.first.clamp(start, after) - start;
        let to = self.end.clamp(start, after) - start;
        bytes.get(from as usize..to as usize).unwrap_or_default()
    }

    /// Whether nothing more is sent.
    pub(super) fn is_over(&self) -> bool {
        self.position >= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9110 14.1.2.
    #[test]
    fn one_range_selects_its_bytes_and_everything_else_all() {
        let part = |first, last| Some(Selected::Part { first, last });
        for (header, expected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=0-499", part(0, 499)),
            ("bytes=500-", part(500, 999)),
            ("bytes=-1", part(999, 999)),
            ("bytes=-5000", part(0, 999)),
            ("bytes=990-5000", part(990, 999)),
            ("bytes=1000-", None),
            ("bytes=-0", None),
            ("bytes=5-4", Some(Selected::All)),
            ("bytes=0-1,5-6", Some(Selected::All)),
            ("bytes=0-0,0-0,0-0", Some(Selected::All)),
            ("bytes=a-b", Some(Selected::All)),
            ("bytes=--5", Some(Selected::All)),
            ("bytes=99999999999999999999-", None),
            ("bytes=0-99999999999999999999", part(0, 999)),
            ("bytes=-99999999999999999999", part(0, 999)),
            ("Bytes=0-0", part(0, 0)),
            ("bytes=-", Some(Selected::All)),
            ("items=0-1", Some(Selected::All)),
        ] {
            assert_eq!(selected(Some(header), 1000).ok(), expected, "{header}");
        }
        assert_eq!(selected(None, 1000).ok(), Some(Selected::All));
        assert_eq!(selected(Some("bytes=0-"), 0).ok(), None);
    }
}
