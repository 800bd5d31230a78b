//! Decodes runs of bytes that belong to one character set, with a fallback for what it lacks.

use encoding_rs::{DecoderResult, Encoding};

use super::code_sets::Set;

/// Decodes the run of two-byte characters in G0 at the start of `rest`. Bytes 05/12, 05/14 and
/// 03/13 are halves of characters here, not delimiters. Returns the length of the run, and whether
/// it was decoded faithfully. `pairs` is scratch memory.
pub(super) fn decode_two_byte_run(g0: Set, rest: &[u8], pairs: &mut Vec<u8>, out: &mut String) -> (usize, bool) {
    pairs.clear();
    let mut length = 0;
    for pair in rest.chunks_exact(2) {
        let [row @ 0x21..=0x7E, cell @ 0x21..=0x7E] = *pair else { break };
        if g0 == Set::JisX0212 {
            pairs.push(0x8F);
        }
        pairs.extend([row | 0x80, cell | 0x80]);
        length += 2;
    }
    if length == 0 {
        // Half of a character.
        out.extend(rest.first().map(|byte| char::from(*byte)));
        return (1, false);
    }
    (length, push_run(encoding_rs::EUC_JP, pairs, out))
}

/// Decodes the run of bytes above 0x80 at the start of `rest`, by the set of G1. Returns the length
/// of the run, and whether it was decoded faithfully.
pub(super) fn decode_g1_run(designated: Option<Set>, rest: &[u8], out: &mut String) -> (usize, bool) {
    let unit = |at: &[u8]| designated.map_or(1, |set| set.g1_unit(at));
    let mut length = 0;
    while let Some(at) = rest.get(length..)
        && at.first().is_some_and(|byte| *byte >= 0x80)
    {
        length += unit(at);
    }
    let length = length.min(rest.len());
    let run = rest.get(..length).unwrap_or_default();
    let faithful = match designated.map(Set::encoding) {
        Some(Some(encoding)) => push_run(encoding, run, out),
        Some(None) => {
            out.extend(run.iter().map(|byte| char::from(*byte)));
            true
        }
        None => {
            push_utf8_or_latin1(run, out);
            false
        }
    };
    (length, faithful)
}

/// Decodes a run with one table. Returns false if the table failed.
///
/// In this case, the whole run is read as UTF-8 if it is valid. Otherwise the bad bytes are read as
/// Latin-1.
pub(super) fn push_run(encoding: &'static Encoding, run: &[u8], out: &mut String) -> bool {
    let start = out.len();
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut position = 0;
    let mut faithful = true;
    loop {
        let rest = run.get(position..).unwrap_or_default();
        out.reserve(decoder.max_utf8_buffer_length_without_replacement(rest.len()).unwrap_or(rest.len() * 4));
        let (result, read) = decoder.decode_to_string_without_replacement(rest, out, true);
        position += read;
        match result {
            DecoderResult::InputEmpty => return faithful,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(bad, after) => {
                if faithful && let Ok(text) = std::str::from_utf8(run) {
                    out.truncate(start);
                    out.push_str(text);
                    return false;
                }
                faithful = false;
                let end = position.saturating_sub(usize::from(after));
                let from = end.saturating_sub(usize::from(bad));
                out.extend(run.get(from..end).unwrap_or_default().iter().map(|b| char::from(*b)));
            }
        }
    }
}

/// Decodes a whole value without a declared meaning: as UTF-8 if it is valid, otherwise as
/// [`push_utf8_or_latin1`] does.
///
/// A character that is cut off at the end of UTF-8 is dropped. Fields of fixed length cut UTF-8 in
/// this way.
pub(super) fn push_undeclared(value: &[u8], out: &mut String) {
    let cut = match std::str::from_utf8(value) {
        Err(error) if error.error_len().is_none() => value.get(..error.valid_up_to()).filter(|valid| !valid.is_ascii()),
        _ => None,
    };
    push_utf8_or_latin1(cut.unwrap_or(value), out);
}

/// Decodes bytes without a declared meaning: valid parts as UTF-8, the rest as Latin-1.
fn push_utf8_or_latin1(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|byte| char::from(*byte)));
    }
}
