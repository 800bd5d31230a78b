//! Accept (PS3.18 8.7, RFC 9110 12.5.1): the choice of the form that the client wants most.
//!
//! Clients get this header wrong in many ways: without quotes, with `TYPE=`, with unknown
//! parameters. Entries that cannot be read are ignored (PS3.18 8.7.5). One wrong entry never makes
//! a 400.

use hyper::StatusCode;
use hyper::header::HeaderValue;

use super::problem::Problem;
use super::query::pairs;

/// Maximum number of media ranges of one request that are examined. A browser sends eight.
const MAX_RANGES: usize = 64;

/// The weight of a range without one, and the greatest weight.
const FULL_WEIGHT: u16 = 1000;

/// A media range with its parameters. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRange {
    /// Type and subtype in lower case. Either may be `*`.
    pub essence: (String, String),
    /// Parameters besides the weight. Values have no quotes.
    pub parameters: Vec<(String, String)>,
    /// The weight in thousandths.
    pub weight: u16,
}

impl MediaRange {
    /// Reads one range. `None` if the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = split_outside_quotes(text, ';');
        let (kind, subkind) = parts.next()?.trim().split_once('/')?;
        let token = |text: &str| {
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(&byte);
            (!text.is_empty() && text.bytes().all(is_token)).then(|| text.to_ascii_lowercase())
        };
        let essence = (token(kind.trim())?, token(subkind.trim())?);
        if essence.0 == "*" && essence.1 != "*" {
            return None;
        }
        let mut range = Self { essence, parameters: Vec::new(), weight: FULL_WEIGHT };
        for parameter in parts {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            let (name, value) = (name.trim().to_ascii_lowercase(), unquoted(value.trim()));
            if name == "q" {
                range.weight = weight(&value).unwrap_or(FULL_WEIGHT);
            } else {
                range.parameters.push((name, value));
            }
        }
        Some(range)
    }

    /// Returns a parameter. If several have the name, it is the first one.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns how closely the range names this type: 0 for `*/*`, 1 for `type/*`, 2 for the type
    /// itself. `None` if the range does not cover the type.
    #[must_use]
    pub fn specificity(&self, kind: &str, subkind: &str) -> Option<u8> {
        match (self.essence.0.as_str(), self.essence.1.as_str()) {
            ("*", "*") => Some(0),
            (own, "*") if own == kind => Some(1),
            (own, own_subkind) if own == kind && own_subkind == subkind => Some(2),
            _ => None,
        }
    }
}

/// Splits a text at separators outside of quoted strings.
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == separator && !quoted
    })
}

/// Returns a value without the quotation marks around it (RFC 9110 5.6.4). One missing mark is
/// accepted.
fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"') else { return text.to_owned() };
    let (mut out, mut escaped) = (String::new(), false);
    for c in inner.chars() {
        match c {
            _ if escaped => {
                escaped = false;
                out.push(c);
            }
            '\\' => escaped = true,
            '"' => break,
            _ => out.push(c),
        }
    }
    out
}

/// Reads a weight in thousandths (RFC 9110 12.4.2).
fn weight(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = format!("{part:0<3}").parse::<u16>().ok()?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(FULL_WEIGHT),
        _ => None,
    }
}

/// The media types that a request accepts. The query parameter `accept` ranks first, then the
/// header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    parameter: Vec<MediaRange>,
    header: Vec<MediaRange>,
}

impl Accept {
    /// Reads the `Accept` headers and the query of a request.
    pub(super) fn of<'h>(headers: impl IntoIterator<Item = &'h HeaderValue>, query: &str) -> Self {
        Self::parse(headers.into_iter().filter_map(|header| header.to_str().ok()), query)
    }

    /// Reads the texts of the headers.
    #[must_use]
    pub fn parse<'h>(headers: impl IntoIterator<Item = &'h str>, query: &str) -> Self {
        let mut accept = Self::default();
        for header in headers {
            add(&mut accept.header, header);
        }
        for (name, value) in pairs(query) {
            if name == "accept" {
                add(&mut accept.parameter, &value);
            }
        }
        accept
    }

    /// Returns the ranges in groups, those of the higher rank first. There is no group if all forms
    /// are equally good.
    #[must_use]
    pub fn groups(&self) -> Vec<&[MediaRange]> {
        [self.parameter.as_slice(), self.header.as_slice()].into_iter().filter(|group| !group.is_empty()).collect()
    }

    /// Returns the media type that the client wants most, and the first of equal ones. Without a
    /// readable range, it is the first of all. No client means 406 by leaving the header out.
    #[must_use]
    pub fn choose<'o>(&self, offers: &[&'o str]) -> Option<&'o str> {
        let groups = self.groups();
        if groups.is_empty() {
            return offers.first().copied();
        }
        groups.into_iter().find_map(|ranges| {
            let mut best: Option<(u16, &'o str)> = None;
            for offer in offers {
                let weight = weight_of(ranges, offer);
                if weight > best.map_or(0, |(known, _)| known) {
                    best = Some((weight, offer));
                }
            }
            best.map(|(_, offer)| offer)
        })
    }
}

fn add(ranges: &mut Vec<MediaRange>, text: &str) {
    let room = MAX_RANGES.saturating_sub(ranges.len());
    ranges.extend(split_outside_quotes(text, ',').filter_map(MediaRange::parse).take(room));
}

/// Returns the weight that the closest range gives to a media type.
fn weight_of(ranges: &[MediaRange], offer: &str) -> u16 {
    let Some(offer) = MediaRange::parse(offer) else { return 0 };
    let (kind, subkind) = &offer.essence;
    let closest = ranges.iter().filter_map(|range| {
        let specificity = range.specificity(kind, subkind)?;
        let is_of_type = match (range.parameter("type"), offer.parameter("type")) {
            (Some(wanted), Some(own)) => wanted.eq_ignore_ascii_case(own),
            (Some(_), None) | (None, _) => true,
        };
        is_of_type.then_some((specificity, range.weight))
    });
    closest.max().map_or(0, |(_, weight)| weight)
}

/// Returns status 406 with the available media types.
pub(super) fn not_acceptable(offers: &[&str]) -> Problem {
    Problem::new(StatusCode::NOT_ACCEPTABLE, format!("this resource can be had as: {}", offers.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: [&str; 2] = ["application/dicom+json", "application/json"];

    fn choose(header: &str, query: &str) -> Option<&'static str> {
        Accept::of([&HeaderValue::from_str(header).unwrap()], query).choose(&JSON)
    }

    #[test]
    fn what_clients_send_is_understood() {
        let dicom = Some("application/dicom+json");
        assert_eq!(Accept::of([], "").choose(&JSON), dicom);
        for header in [
            "application/dicom+json",
            "application/dicom+json, multipart/related; type=\"application/dicom+xml\"",
            "*/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
            "APPLICATION/DICOM+JSON;q=1.0",
            "application/*",
            "application/dicom+json;charset=\"utf-8, or so\";q=0.5",
            "garbage, ;;, application/dicom+json",
            "garbage",
            "",
            "application/json;q=0.4, application/dicom+json;q=0.5",
        ] {
            assert_eq!(choose(header, ""), dicom, "{header}");
        }
        assert_eq!(choose("application/json", ""), Some("application/json"));
        assert_eq!(choose("application/json, application/dicom+json;q=0.9", ""), Some("application/json"));
        assert_eq!(choose("application/dicom+json;q=0, */*;q=0.1", ""), Some("application/json"));
        assert_eq!(choose("image/png", ""), None);
        assert_eq!(choose("multipart/related; type=\"application/dicom+xml\"", ""), None);
    }

    // PS3.18 8.3.3.1.
    #[test]
    fn the_query_parameter_ranks_first() {
        assert_eq!(choose("application/dicom+json", "accept=application%2Fjson"), Some("application/json"));
        assert_eq!(choose("image/png", "x=1&accept=application/json"), Some("application/json"));
        assert_eq!(choose("application/json", "accept=image/png"), Some("application/json"));
    }

    #[test]
    fn a_range_is_read_with_its_parameters() {
        let range =
            MediaRange::parse("Multipart/Related ; TYPE=application/dicom; transfer-syntax=\"*\" ; q=.5").unwrap();
        assert_eq!(range.essence, ("multipart".into(), "related".into()));
        assert_eq!(range.parameter("type"), Some("application/dicom"));
        assert_eq!(range.parameter("transfer-syntax"), Some("*"));
        assert_eq!(range.weight, FULL_WEIGHT, "a weight that is none is no weight");
        assert_eq!(MediaRange::parse("a/b;q=0.123").unwrap().weight, 123);
        for bad in ["", "a", "a/", "/b", "*/b", "a b/c", "a/b c", "\"a/b\""] {
            assert_eq!(MediaRange::parse(bad), None, "{bad}");
        }
        let quoted = MediaRange::parse("a/b; c=\"d;e\\\"f\"; g=\"h").unwrap();
        assert_eq!((quoted.parameter("c"), quoted.parameter("g")), (Some("d;e\"f"), Some("h")));
    }
}
