//! Recognises bytes: where an object starts, which encoding it has, and whether a header is
//! plausible.

use super::state::*;
use crate::encoding::header::{ElementHeader, LONGEST_HEADER, read_plain_in, tag_at, u32_of};
use crate::encoding::tag::{DELIMITER_GROUP, ITEM, SEQUENCE_DELIMITER, UNDEFINED};
use crate::encoding::vr::{self, Form};
use crate::ingest::limits::MAX_LOOK_AHEAD;
use crate::ingest::outcome::EMPTY;

/// Returns where reading starts in an object without prefix, or why it is not an object.
pub(super) fn start(bytes: &[u8]) -> Result<State, &'static str> {
    let reason = match bytes {
        [] => EMPTY,
        [0x1F, 0x8B, ..] => "gzip-compressed data",
        [b'P', b'K', 3 | 5, 4 | 6, ..] => "zip archive",
        [0xFF, 0xD8, 0xFF, ..] => "JPEG image",
        [0x89, b'P', b'N', b'G', ..] => "PNG image",
        [b'%', b'P', b'D', b'F', ..] => "PDF document",
        [b'M', b'Z', ..] | [0x7F, b'E', b'L', b'F', ..] => "executable",
        _ => {
            let Some(start) = bytes.first_chunk::<8>() else { return Err("too short") };
            if starts_command_set(start) {
                return Ok(State::Meta);
            }
            if start.starts_with(&[2, 0]) || start.starts_with(&[0, 2, 0]) {
                return Ok(State::Meta);
            }
            let first = |big_endian| matches!(tag_at(start, big_endian) >> 16, 0x0004 | 0x0008);
            return match syntax(start) {
                Some(found) if first(found.big_endian) => Ok(State::DataSetStart),
                _ => Err("no DICM prefix, and no data set at the start"),
            };
        }
    };
    Err(reason)
}

/// Returns the encoding of the first element of a data set, if it can be recognised.
pub(super) fn syntax(start: &[u8; 8]) -> Option<Syntax> {
    // The first groups of a data set are small, so one byte of the number is zero.
    let big_endian = match (start[0], start[1]) {
        (1.., 0) => false,
        (0, 1..) => true,
        _ => return None,
    };
    if is_explicit_element(start) {
        return Some(Syntax { explicit: true, big_endian });
    }
    // The length of the first element of a data set fits in two bytes.
    let [.., l0, l1, l2, l3] = *start;
    let length = u32_of([l0, l1, l2, l3], big_endian);
    (length <= 0xFFFF || length == UNDEFINED).then_some(Syntax { explicit: false, big_endian })
}

/// Whether these are the first bytes of a command set. It begins with its group length (PS3.7 E.1),
/// in one of the encodings.
pub(super) fn starts_command_set(start: &[u8; 8]) -> bool {
    let [.., v0, v1, l0, l1] = *start;
    start.starts_with(&[0; 4])
        && match &[v0, v1] {
            b"UL" => matches!([l0, l1], [4, 0] | [0, 4]),
            _ => matches!([v0, v1, l0, l1], [4, 0, 0, 0] | [0, 0, 0, 4]),
        }
}

/// Parses the header of an element of group 0000 or 0002 at the start of `rest`. Returns its
/// encoding too. The header may be longer than `rest`.
pub(super) fn foreign_element(start: &[u8; 8], rest: &[u8], likely_big: bool) -> Option<(ElementHeader, Syntax)> {
    let [g0, g1, .., v0, v1, _, l1] = *start;
    let big_endian = match [g0, g1] {
        [2, 0] => false,
        [0, 2] => true,
        [0, 0] if starts_command_set(start) => l1 == 4,
        [0, 0] => likely_big,
        _ => return None,
    };
    let explicit = is_explicit_element(start);
    let header = read_plain_in(explicit, big_endian, rest).unwrap_or(ElementHeader {
        // Its length is not there yet.
        tag: tag_at(start, big_endian),
        vr: [v0, v1],
        length: 0,
        size: LONGEST_HEADER,
        explicit,
    });
    let is_element = header.length != UNDEFINED && *start != [0; 8];
    is_element.then_some((header, Syntax { explicit, big_endian }))
}

pub(super) fn is_explicit_element(start: &[u8; 8]) -> bool {
    let [.., v0, v1, r0, r1] = *start;
    match vr::form([v0, v1]) {
        Form::Short => true,
        Form::Long => [r0, r1] == [0, 0],
        Form::Unknown => false,
    }
}

/// Whether this is beyond doubt the next element of a data set.
pub(super) fn beyond_doubt(header: &ElementHeader, last_tag: u32) -> bool {
    let group = header.tag >> 16;
    let group_fits = matches!(group, 0x0002..=0x0080 | 0x0088 | 0x0100..=0x6000) && group != 0;
    header.tag > last_tag
        && group_fits
        && (!header.explicit || vr::form(header.vr) != Form::Unknown)
        && (header.length <= 1 << 20 || header.length == UNDEFINED)
}

pub(super) fn is_uid_like(value: &[u8]) -> bool {
    let uid = value.strip_suffix(b"\0").unwrap_or(value).trim_ascii();
    (5..=64).contains(&uid.len())
        && uid.first().is_some_and(u8::is_ascii_digit)
        && uid.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        && uid.iter().filter(|byte| **byte == b'.').count() >= 2
}

/// Returns the first bytes after the value of the header at the start of `rest`. For undefined
/// length, they are the bytes after the header.
pub(super) fn next<'r>(rest: &'r [u8], header: &ElementHeader, is_last: bool) -> FollowingBytes<'r> {
    let length = if header.length == UNDEFINED { 0 } else { header.length as usize };
    if length > MAX_LOOK_AHEAD {
        return FollowingBytes::TooFar;
    }
    let at = header.size + length;
    match rest.get(at..).and_then(|next| next.first_chunk::<8>()) {
        Some(next) => FollowingBytes::Bytes(next),
        None if !is_last => FollowingBytes::Wait,
        None if rest.len() == at => FollowingBytes::End,
        None => FollowingBytes::TooFar,
    }
}

/// Whether an element or a delimiter follows the value, if the header at the start of `rest` is
/// read in this way. `None` if the deciding bytes are not there yet.
pub(super) fn goes_on(rest: &[u8], header: &ElementHeader, syntax: Syntax, is_last: bool) -> Option<bool> {
    let next = match self::next(rest, header, is_last) {
        FollowingBytes::Bytes(next) => next,
        FollowingBytes::Wait => return None,
        FollowingBytes::TooFar => return Some(false),
        FollowingBytes::End => return Some(true),
    };
    let next_tag = tag_at(next, syntax.big_endian);
    if header.length == UNDEFINED {
        return Some(matches!(next_tag, ITEM | SEQUENCE_DELIMITER));
    }
    let [.., l0, l1, l2, l3] = *next;
    let next_length = if syntax.big_endian { [l3, l2, l1, l0] } else { [l0, l1, l2, l3] };
    let sane_implicit = !header.explicit
        && next_tag >> 16 == header.tag >> 16
        && u32::from_le_bytes(next_length) as usize <= MAX_LOOK_AHEAD;
    Some(next_tag >> 16 == DELIMITER_GROUP || (next_tag > header.tag && (is_explicit_element(next) || sane_implicit)))
}

/// Contents after the first element of an item, read in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    /// An element, a delimiter or the end of the item.
    On,
    /// Something else, or the element is longer than the item.
    Wrong,
    /// The following bytes are beyond the look-ahead limit.
    TooFar,
}

/// Returns what follows the explicit element at the start of `rest`. `None` if the deciding bytes
/// are not there yet.
///
/// `available` bytes of the item are left. With `is_last`, no more than `rest` will come.
pub(super) fn item_goes_on(
    rest: &[u8],
    header: &ElementHeader,
    big_endian: bool,
    (available, is_last): (u64, bool),
) -> Option<Going> {
    let length = if header.length == UNDEFINED { 0 } else { header.length };
    let size = header.size as u64 + u64::from(length);
    if size > available {
        return Some(Going::Wrong);
    }
    if size == available {
        return Some(Going::On);
    }
    let next = match self::next(rest, header, is_last) {
        FollowingBytes::Bytes(next) => next,
        FollowingBytes::Wait => return None,
        FollowingBytes::TooFar if length as usize > MAX_LOOK_AHEAD => return Some(Going::TooFar),
        FollowingBytes::TooFar => return Some(Going::Wrong),
        FollowingBytes::End => return Some(Going::On),
    };
    let next_tag = tag_at(next, big_endian);
    let goes_on = if header.length == UNDEFINED {
        matches!(next_tag, ITEM | SEQUENCE_DELIMITER)
    } else {
        next_tag >> 16 == DELIMITER_GROUP || (next_tag > header.tag && is_explicit_element(next))
    };
    Some(if goes_on { Going::On } else { Going::Wrong })
}
