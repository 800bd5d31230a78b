//! Parts that all pages share: the response, its policy, style, script and icon.

use askama::Template;
use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};

use crate::web::body::Body;
use crate::web::problem::Problem;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = include_str!("page.svg");

/// Nothing comes from elsewhere, nothing is inline, and no other page shows this one in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; \
                      img-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The style sheet.
pub(in crate::web) fn style() -> Response<Body> {
    asset(STYLE, "text/css; charset=utf-8")
}

/// The script.
pub(in crate::web) fn script() -> Response<Body> {
    asset(SCRIPT, "text/javascript; charset=utf-8")
}

/// The icon of the tab.
pub(in crate::web) fn icon() -> Response<Body> {
    asset(ICON, "image/svg+xml")
}

fn asset(text: &'static str, media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The response with a page.
pub(super) fn html(page: &impl Template) -> Result<Response<Body>, Problem> {
    let text = page.render().map_err(|_| Problem::ours())?;
    let mut response = Response::new(Body::from(text));
    dress(&mut response);
    Ok(response)
}

fn dress(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    why: &'a str,
}

/// A problem as a page, so that a person gets the reason with the way back.
pub(in crate::web) fn shown(answer: Result<Response<Body>, Problem>) -> Response<Body> {
    let problem = match answer {
        Ok(response) => return response,
        Err(problem) => problem,
    };
    let text = ProblemPage { why: &problem.why }.render();
    let mut response = problem.into_response();
    if let Ok(text) = text {
        dress(&mut response);
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(text);
    }
    response
}

/// Text as a person reads it: several values with commas, and no control characters.
pub(super) fn readable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str(", "),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A number with a comma after each thousand.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The links to the page before and the page after.
pub(super) struct Paging {
    /// The number of this page, from 1.
    pub(super) number: usize,
    /// The address of the page before; empty where this is the first.
    pub(super) before: String,
    /// The address of the page after; empty where this is the last.
    pub(super) after: String,
}

impl Paging {
    /// The links of a page, which `address` gives for the number of a page.
    pub(super) fn new(number: usize, has_more: bool, address: impl Fn(usize) -> String) -> Self {
        let before = if number > 1 { address(number - 1) } else { String::new() };
        let after = if has_more { address(number + 1) } else { String::new() };
        Self { number, before, after }
    }
}

/// The number of a page as a query has it, from 1 to `last`.
pub(super) fn page_number(text: &str, last: usize) -> usize {
    text.parse().unwrap_or(1).clamp(1, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_values_are_a_list_and_control_characters_are_spaces() {
        assert_eq!(readable("CT\\MR"), "CT, MR");
        assert_eq!(readable("a\u{7}b\nc"), "a b c");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 1_600_000].map(grouped), ["0", "999", "1,000", "1,600,000"]);
    }

    #[test]
    fn pages_have_links_to_their_neighbours() {
        let address = |number: usize| format!("/?page={number}");
        let first = Paging::new(page_number("", 9), true, address);
        assert_eq!((first.number, first.before.as_str(), first.after.as_str()), (1, "", "/?page=2"));
        let last = Paging::new(page_number("99", 9), false, address);
        assert_eq!((last.number, last.before.as_str(), last.after.as_str()), (9, "/?page=8", ""));
        assert_eq!(page_number("-3", 9), 1);
    }

    #[test]
    fn style_and_script_stay_small() {
        assert!(STYLE.len() + SCRIPT.len() < 30_000, "{} + {}", STYLE.len(), SCRIPT.len());
    }
}
