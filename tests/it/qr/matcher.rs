//! A second attribute matcher, slow and obvious. It follows the text of PS3.4 C.2.2.2 and the
//! choices of the conformance statement.
//!
//! Nothing here calls `model::matching`, `model::datetime` or `model::person_name`, because this
//! matcher is their oracle.

use std::collections::HashSet;

use dcmdex::model::attribute::{ATTRIBUTES, Attribute, LetterCase, Multiplicity, ValueSource};
use dcmdex::model::matching::{KeyValue, MatchPolicy, Matching, NameMatching, QuotationMarks, SeveralValues};
use dicom_core::VR;
use proptest::prelude::*;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

/// Negotiated options.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// C.2.2.2.7.
    pub(super) empty_value: bool,
    /// C.2.2.2.8.
    pub(super) multiple_value: bool,
    /// Names are matched by words.
    pub(super) fuzzy: bool,
    /// Timezone Offset From UTC (0008,0201) of the data set.
    pub(super) zone: &'static str,
}

/// Whether a stored value matches a key. `None` if the key must be refused.
pub(super) fn matches(attribute: &Attribute, key: &str, stored: &str, rules: Rules) -> Option<bool> {
    let vr = attribute.vr;
    let key = unpadded(vr, key);
    if is_universal(key) {
        return Some(true);
    }
    let has_empty_value = !matches!(vr, VR::UI | VR::IS | VR::DS | VR::US | VR::AS | VR::AT);
    if rules.empty_value && has_empty_value && key == "\"\"" {
        return Some(stored.is_empty());
    }
    if vr == VR::UI {
        // C.2.2.2.2: a list; a lone star among the UIDs is everything.
        let uids: Vec<_> =
            key.split('\\').map(|uid| uid.trim_matches([' ', '\0'])).filter(|uid| !uid.is_empty()).collect();
        let everything = uids.is_empty() || uids.iter().any(|uid| is_universal(uid));
        // Or the one UID of an object that has it so.
        let is_whole = key.len() <= 128 && key == stored;
        let found = values(attribute, stored).iter().any(|stored| uids.contains(&stored.as_str()));
        return Some(everything || is_whole || found);
    }
    let keys: Vec<String> = if has_one_value_only(vr) {
        vec![key.to_owned()]
    } else {
        // PS3.5 6.2.1.1: a name of delimiters alone is no name.
        let padding: &[char] = if vr == VR::PN { &[' ', '^', '='] } else { &[' '] };
        let keys = key.split('\\').map(|key| unpadded(vr, key).to_owned());
        keys.filter(|key| !key.trim_matches(padding).is_empty()).collect()
    };
    let has_multiple_value = matches!(vr, VR::AE | VR::AS | VR::AT | VR::CS | VR::LO | VR::PN | VR::SH | VR::UC);
    if rules.multiple_value && has_multiple_value && attribute.multiplicity == Multiplicity::Many && keys.len() > 1 {
        // C.2.2.2.8: all of them, without wild cards; names are matched as ever.
        let found = |key: &String| {
            values(attribute, stored).iter().any(|stored| match vr {
                VR::PN => is_universal(key) || name_by(key, stored, rules),
                _ if attribute.letter_case == LetterCase::Folded => folded(key) == folded(stored),
                _ => key == stored,
            })
        };
        return Some(keys.iter().all(found));
    }
    // Several values in a key: any of them. None that counts: universal.
    let mut found = keys.is_empty();
    for key in &keys {
        found |= is_universal(key)
            || values(attribute, stored)
                .iter()
                .try_fold(false, |found, stored| Some(found | one(attribute, key, stored, rules)?))?;
    }
    Some(found)
}

/// C.2.2.2.3, and the first note of C.2.2.2.4.
fn is_universal(key: &str) -> bool {
    key.chars().all(|c| c == '*' || c == ' ')
}

/// PS3.5 6.2.
fn unpadded(vr: VR, text: &str) -> &str {
    let text = text.trim_end_matches([' ', '\0']);
    if has_one_value_only(vr) || matches!(vr, VR::PN | VR::UC) { text } else { text.trim_start_matches([' ', '\0']) }
}

/// In these VRs a backslash is an ordinary character (PS3.5 6.2).
fn has_one_value_only(vr: VR) -> bool {
    matches!(vr, VR::LT | VR::ST | VR::UT | VR::UR)
}

/// Splits a stored text into values. A key matches if it matches any of them (C.2.2.3).
fn values(attribute: &Attribute, stored: &str) -> Vec<String> {
    let vr = attribute.vr;
    let whole = unpadded(vr, stored).to_owned();
    let is_one = attribute.multiplicity == Multiplicity::One;
    if has_one_value_only(vr) || is_one && vr == VR::UI {
        return vec![whole];
    }
    let mut values: Vec<_> = stored.split('\\').map(|value| unpadded(vr, value).to_owned()).collect();
    // An object may have several against the data dictionary, or a backslash in one.
    if is_one {
        values.push(whole);
    }
    values
}

fn one(attribute: &Attribute, key: &str, stored: &str, rules: Rules) -> Option<bool> {
    Some(match attribute.vr {
        VR::DA | VR::TM | VR::DT => return moment(attribute.vr, key, &in_zone(attribute.vr, key, stored, rules.zone)),
        VR::IS | VR::DS | VR::US => number(key).map_or(key == stored, |wanted| number(stored) == Some(wanted)),
        VR::AS | VR::AT => key == stored,
        VR::PN => name_by(key, stored, rules),
        _ if attribute.letter_case == LetterCase::Folded => like_stored(&folded(key), &characters(stored)),
        _ => like(&plain(key), &plain(stored)),
    })
}

/// A character of a pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Any,
    One,
    Char(char),
}

fn plain(text: &str) -> Vec<Part> {
    text.chars().map(part).collect()
}

fn part(c: char) -> Part {
    match c {
        '*' => Part::Any,
        '?' => Part::One,
        other => Part::Char(other),
    }
}

/// Wild card matching (C.2.2.2.4). In the second argument stars and question marks are ordinary
/// characters.
fn like(pattern: &[Part], text: &[Part]) -> bool {
    let text: Vec<char> = text
        .iter()
        .map(|part| match part {
            Part::Any => '*',
            Part::One => '?',
            Part::Char(c) => *c,
        })
        .collect();
    // fits[i]: whether the pattern so far fits the first i characters.
    let mut fits = vec![false; text.len() + 1];
    fits[0] = true;
    for part in pattern {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match part {
                Part::Any => fits[..=at].contains(&true),
                Part::One => at > 0 && fits[at - 1],
                Part::Char(c) => at > 0 && fits[at - 1] && text[at - 1] == *c,
            };
        }
        fits = next;
    }
    fits[text.len()]
}

/// A stored character, in a form that ignores case, accents and width.
#[derive(Clone, Debug)]
struct Character {
    folded: Vec<char>,
    /// Whether it counts as one character or as the number of characters to which it folds.
    is_divisible: bool,
}

/// The characters in the tests.
fn characters(text: &str) -> Vec<Character> {
    let mut found: Vec<Character> = Vec::new();
    for c in text.chars() {
        let (folded, is_divisible) = match c {
            'A'..='Z' => (vec![c.to_ascii_lowercase()], false),
            'é' | 'É' | 'è' => (vec!['e'], false),
            'ü' | 'Ü' => (vec!['u'], false),
            'ä' | 'Ä' => (vec!['a'], false),
            'ö' | 'Ö' | 'Ø' | 'ø' => (vec!['o'], false),
            'Ａ' => (vec!['a'], false),
            'ß' => (vec!['s', 's'], true),
            'æ' | 'Æ' => (vec!['a', 'e'], true),
            'ﬁ' => (vec!['f', 'i'], true),
            // SARA AM is two letters to Unicode and one to who writes it.
            'ำ' => (vec!['\u{E4D}', '\u{E32}'], false),
            'Ж' => (vec!['ж'], false),
            'ﾀ' => (vec!['タ'], false),
            // They mean nothing to a search.
            '\u{301}' | '\u{AD}' => (Vec::new(), false),
            // What follows them makes one character with the one before, if it can.
            'ﾞ' | '\u{3099}' | '\u{1174}' => {
                let last = found.iter().rposition(|character| !character.folded.is_empty());
                let joined = match (last.map(|at| found[at].folded.as_slice()), c) {
                    (Some(['タ']), 'ﾞ' | '\u{3099}') => Some('ダ'),
                    (Some(['\u{1112}']), '\u{1174}') => Some('희'),
                    _ => None,
                };
                if let (Some(at), Some(joined)) = (last, joined) {
                    found.truncate(at);
                    (vec![joined], false)
                } else {
                    (vec![if c == 'ﾞ' { '\u{3099}' } else { c }], false)
                }
            }
            other => (vec![other], false),
        };
        found.push(Character { folded, is_divisible });
    }
    found
}

/// Returns a key in the same form.
fn folded(text: &str) -> Vec<Part> {
    characters(text).into_iter().flat_map(|character| character.folded).map(part).collect()
}

/// Wild card matching (C.2.2.2.4) in which `?` is one stored character. An ignored mark may count
/// as one or as none.
fn like_stored(pattern: &[Part], text: &[Character]) -> bool {
    fn fits(pattern: &[Part], text: &[Character], at: usize, failed: &mut HashSet<(usize, usize, usize)>) -> bool {
        let state = (pattern.len(), text.len(), at);
        if failed.contains(&state) {
            return false;
        }
        let found = match text.split_first() {
            None => pattern.iter().all(|part| *part == Part::Any),
            Some((character, rest)) if at > 0 && at == character.folded.len() => fits(pattern, rest, 0, failed),
            Some((character, rest)) => {
                let is_skipped = character.folded.is_empty() && fits(pattern, rest, 0, failed);
                let is_one = character.is_divisible || character.folded.len() == 1;
                is_skipped
                    || match pattern.split_first() {
                        None => false,
                        Some((Part::Any, after)) => {
                            fits(after, text, at, failed)
                                || at < character.folded.len() && fits(pattern, text, at + 1, failed)
                        }
                        Some((Part::One, after)) => {
                            at == 0 && fits(after, rest, 0, failed)
                                || is_one && at < character.folded.len() && fits(after, text, at + 1, failed)
                        }
                        Some((Part::Char(c), after)) => {
                            character.folded.get(at) == Some(c) && fits(after, text, at + 1, failed)
                        }
                    }
            }
        };
        if !found {
            failed.insert(state);
        }
        found
    }
    fits(pattern, text, 0, &mut HashSet::new())
}

fn number(text: &str) -> Option<f64> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|_| is_number)
}

fn name_by(key: &str, stored: &str, rules: Rules) -> bool {
    if !rules.fuzzy {
        return name(key, stored);
    }
    // What the conformance statement says of fuzzy semantic matching: each word begins a word of
    // the name, or sounds like it, or fits it. What the key finds otherwise, it finds here.
    let words = |name: &str| -> Vec<Vec<Part>> {
        let words = name.split([' ', '^', '=', ',', '.', '-']).map(folded);
        words.filter(|w: &Vec<_>| !w.iter().all(|part| *part == Part::Any)).collect()
    };
    let (wanted, found) = (words(key), words(stored));
    let fits = |wanted: &Vec<Part>, word: &Vec<Part>| {
        if wanted.iter().any(|part| matches!(part, Part::Any | Part::One)) {
            return like(wanted, word);
        }
        word.starts_with(wanted) || sounds(wanted).iter().any(|code| sounds(word).contains(code))
    };
    let by_words = !wanted.is_empty() && wanted.iter().all(|wanted| found.iter().any(|word| fits(wanted, word)));
    by_words || name(key, stored)
}

/// Returns the Double Metaphone codes of a word: one or two. The word has three to 64 Latin
/// letters, without apostrophes.
fn sounds(word: &[Part]) -> Vec<String> {
    let letters: Option<String> = word
        .iter()
        .filter(|part| **part != Part::Char('\''))
        .map(|part| match part {
            Part::Char(c) if c.is_ascii_lowercase() => Some(*c),
            _ => None,
        })
        .collect();
    let Some(letters) = letters.filter(|letters| (3..=64).contains(&letters.len())) else { return Vec::new() };
    let code = rphonetic::DoubleMetaphone::new(Some(8)).double_metaphone(&letters);
    [code.primary(), code.alternate()].into_iter().filter(|code| !code.is_empty()).collect()
}

const HEARD: [&str; 10] = [
    "Meier^Ann",
    "MEYER",
    "Mayr-Smith^Jo",
    "Smyth^John Paul",
    "Schmidt^Éva",
    "O'Brien",
    "OBrian^A",
    "Hanna",
    "Anna^B",
    "Stephen^Steven",
];

/// Name matching by component group (PS3.5 6.2.1 and C.2.2.2.1).
fn name(key: &str, stored: &str) -> bool {
    let key = key.trim_end_matches([' ', '^', '=']);
    let mut groups: Vec<&str> = stored.splitn(3, '=').collect();
    groups.resize(3, "");
    if !key.contains('=') {
        let mut present: Vec<&str> = groups.into_iter().filter(|group| !group.is_empty()).collect();
        if present.is_empty() {
            present.push("");
        }
        return present.into_iter().any(|group| name_group(key, group));
    }
    key.splitn(3, '=').zip(groups).all(|(key, group)| name_group(key, group))
}

fn name_group(key: &str, group: &str) -> bool {
    let (key, group) = (components(key), components(group));
    if key.iter().all(|component| is_universal(component)) && key.len() <= 1 {
        return true;
    }
    let text = key.join("^");
    if !text.contains(['*', '?']) {
        // The components of the key, and perhaps more.
        let key: Vec<_> = key.iter().map(|component| folded(component)).collect();
        let group: Vec<_> = group.iter().map(|component| folded(component)).collect();
        return group.starts_with(&key);
    }
    // C.2.2.2.4: only a universal key matches a value of zero length.
    if group == [""] {
        return false;
    }
    let mut group = group;
    let wanted = text.matches('^').count() + 1;
    // PS3.5 6.2.1.1: components may be left out at the end, up to the five that a name has.
    while group.len() < wanted && wanted <= 5 {
        group.push(String::new());
    }
    like_stored(&folded(&text), &characters(&group.join("^")))
}

/// Returns the trimmed components, without empty ones at the end.
fn components(group: &str) -> Vec<String> {
    let is_blank = |text: &str| folded(text).iter().all(|part| *part == Part::Char(' '));
    let component = |text: &str| if is_blank(text) { String::new() } else { text.trim().to_owned() };
    let mut components: Vec<String> = group.split('^').map(component).collect();
    while components.len() > 1 && components.last().is_some_and(String::is_empty) {
        components.pop();
    }
    components
}

/// PS3.5 table 6.2-1: a DT without an offset is in the time zone of its data set. That counts where
/// the key has an offset.
fn in_zone(vr: VR, key: &str, stored: &str, zone: &str) -> String {
    let needs_zone = vr == VR::DT && key.contains('+') && !stored.contains('+') && !stored.is_empty();
    format!("{stored}{}", if needs_zone { zone } else { "" })
}

/// Matching of DA, TM and DT (C.2.2.2.1 and C.2.2.2.5). Values become texts of full length, whose
/// order is the order of time.
fn moment(vr: VR, key: &str, stored: &str) -> Option<bool> {
    let spelled = key.trim_end_matches(['*', ' ']);
    let stored_at = match vr {
        VR::DA if self::bounds(vr, stored).is_some_and(|(first, last)| first != last) => None,
        _ => self::bounds(vr, stored).map(|(first, _)| first),
    };
    let Some((low, high)) = key.split_once('-') else {
        return Some(match self::bounds(vr, spelled) {
            Some((first, last)) => {
                stored == spelled || stored_at.is_some_and(|stored| first <= stored && stored <= last)
            }
            // No date: as written.
            None => key == stored,
        });
    };
    let is_open = |text: &str| text.trim_matches([' ', '*']).is_empty();
    if is_open(low) && is_open(high) {
        return Some(true);
    }
    let first = if is_open(low) { None } else { Some(range_end(vr, low, true)?) };
    let last = if is_open(high) { None } else { Some(range_end(vr, high, false)?) };
    Some(
        stored_at
            .is_some_and(|stored| first.is_none_or(|first| first <= stored) && last.is_none_or(|last| stored <= last)),
    )
}

/// Returns the first or the last moment of a range end.
///
/// An impossible end with a single sensible meaning becomes the nearest existing day, or the end of
/// the day.
pub(super) fn range_end(vr: VR, text: &str, is_low: bool) -> Option<String> {
    let text = text.trim_matches([' ', '*']);
    let pick = |(first, last): (String, String)| if is_low { first } else { last };
    if let Some(bounds) = bounds(vr, text) {
        return Some(pick(bounds));
    }
    let is_moment = text.len() > 8 && bounds(VR::DT, text).is_some();
    let midnight = |text: &str| {
        let forms = ["24", "2400", "240000", "24:00", "24:00:00", "240000.0", "240000.000000"];
        forms.contains(&text).then(|| "240000.000000".to_owned())
    };
    match vr {
        VR::DA if is_moment => Some(pick(date_bounds(&text[..8])?)),
        VR::DA => nearest_day(text, is_low),
        VR::TM if is_moment => Some(pick(time_bounds(&text[8..])?)),
        VR::TM => midnight(text),
        _ => {
            let (date, time) = text.split_at_checked(8)?;
            if let (Some((day, _)), Some(midnight)) =
                (date_bounds(date).filter(|_| !date.contains('.')), midnight(time))
            {
                return (!time.contains(':')).then(|| day + &midnight);
            }
            if !time.is_empty() && time_bounds(time).is_none() {
                return None;
            }
            let day = nearest_day(date, is_low)?;
            Some(day + if is_low { "000000.000000" } else { "235960.999999" })
        }
    }
}

fn nearest_day(text: &str, is_low: bool) -> Option<String> {
    let is_dotted = text.char_indices().filter(|(_, c)| *c == '.').map(|(at, _)| at).eq([4, 7]);
    let text = if is_dotted { text.replace('.', "") } else { text.to_owned() };
    if text.len() != 8 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (month, day) = (text[4..6].parse::<u32>().unwrap(), text[6..].parse::<u32>().unwrap());
    let has_meaning = matches!((month, day), (0, 0) | (99, 99) | (1..=12, 0..=31 | 99));
    if !has_meaning {
        return None;
    }
    let year = text[..4].parse::<i32>().unwrap();
    let all = (year - 1..=year + 1).flat_map(|year| {
        let days = (1..=12).flat_map(|month| (1..=31).map(move |day| (month, day)));
        days.map(move |(month, day)| format!("{year:04}{month:02}{day:02}"))
    });
    let mut all = all.filter(|day| day.len() == 8 && date_bounds(day).is_some());
    // Beyond all days stands the text itself: no day is as late, or as early.
    let found = if is_low { all.find(|day| *day >= text) } else { all.rfind(|day| *day <= text) };
    Some(found.unwrap_or(text))
}

/// Returns the first and the last moment that a value names.
fn bounds(vr: VR, text: &str) -> Option<(String, String)> {
    match vr {
        VR::DA => date_bounds(text),
        VR::TM => time_bounds(text),
        _ => {
            if let Some(at) = text.find(['+', '-']) {
                let (local, offset) = text.split_at(at);
                let (first, last) = bounds(vr, local)?;
                let digits = offset.len() == 5 && offset[1..].bytes().all(|b| b.is_ascii_digit());
                let offset = Some(offset).filter(|_| digits)?;
                let minutes = offset[1..3].parse::<i32>().unwrap() * 60 + offset[3..].parse::<i32>().unwrap();
                let east = if offset.starts_with('+') { minutes } else { -minutes };
                return Some((earlier(&first, east), earlier(&last, east)));
            }
            if text.len() <= 8 {
                let (first, last) = date_bounds(text).filter(|_| !text.contains('.'))?;
                return Some((format!("{first}000000.000000"), format!("{last}235960.999999")));
            }
            let (date, time) = text.split_at_checked(8)?;
            let (day, last) = date_bounds(date).filter(|_| !date.contains('.'))?;
            let (first, until) = time_bounds(time).filter(|_| !time.contains(':'))?;
            (day == last).then(|| (format!("{day}{first}"), format!("{day}{until}")))
        }
    }
}

/// Returns the moment that is so many minutes before another one.
fn earlier(moment: &str, minutes: i32) -> String {
    let (day, clock) = moment.split_at(8);
    let of_day = clock[..2].parse::<i32>().unwrap() * 60 + clock[2..4].parse::<i32>().unwrap() - minutes;
    let number = day.parse::<i32>().unwrap();
    let days = |step: i32| {
        (1..).map(move |steps| format!("{:08}", number + steps * step)).find(|day| date_bounds(day).is_some()).unwrap()
    };
    let day = match of_day.div_euclid(24 * 60) {
        0 => day.to_owned(),
        step => days(step),
    };
    let of_day = of_day.rem_euclid(24 * 60);
    format!("{day}{:02}{:02}{}", of_day / 60, of_day % 60, &clock[4..])
}

pub(super) fn date_bounds(text: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = if text.contains('.') {
        text.split('.').collect()
    } else {
        [text.get(..4), text.get(4..6), text.get(6..)].into_iter().flatten().filter(|part| !part.is_empty()).collect()
    };
    let is_number = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
    if !parts.iter().all(is_number) || !parts.iter().map(|part| part.len()).eq([4, 2, 2].into_iter().take(parts.len()))
    {
        return None;
    }
    let whole = parts.concat();
    if whole.len() != text.chars().filter(|c| *c != '.').count() || parts.is_empty() {
        return None;
    }
    let number = |at: usize| parts.get(at).map(|part| part.parse::<u32>().unwrap());
    let (year, month, day) = (number(0)?, number(1), number(2));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = |month: u32| match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    if year == 0 || month.is_some_and(|month| !(1..=12).contains(&month)) {
        return None;
    }
    Some(match (month, day) {
        (None, _) => (format!("{year:04}0101"), format!("{year:04}1231")),
        (Some(month), None) => (format!("{year:04}{month:02}01"), format!("{year:04}{month:02}{:02}", length(month))),
        (Some(month), Some(day)) if (1..=length(month)).contains(&day) => (whole.clone(), whole),
        _ => return None,
    })
}

pub(super) fn time_bounds(text: &str) -> Option<(String, String)> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (text, None),
    };
    let parts: Vec<&str> = if clock.contains(':') {
        clock.split(':').collect()
    } else {
        [clock.get(..2), clock.get(2..4), clock.get(4..)]
            .into_iter()
            .flatten()
            .filter(|part| !part.is_empty())
            .collect()
    };
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    if parts.is_empty() || parts.len() > 3 || !parts.iter().all(|part| digits(part)) {
        return None;
    }
    if parts.concat().len() != clock.chars().filter(|c| *c != ':').count() {
        return None;
    }
    for (part, most) in parts.iter().zip([23, 59, 60]) {
        if part.parse::<u32>().unwrap() > most {
            return None;
        }
    }
    let fraction = match fraction {
        None => "",
        Some(fraction) if parts.len() == 3 && !fraction.is_empty() => fraction,
        Some(_) => return None,
    };
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // PS3.5 6.2 allows six digits; what further ones say is less than anybody asks for.
    let fraction = &fraction[..fraction.len().min(6)];
    let given = format!("{}{}{fraction}", parts.concat(), if fraction.is_empty() { "" } else { "." });
    let (first, last) = ("000000.000000", "235960.999999");
    Some((format!("{given}{}", &first[given.len()..]), format!("{given}{}", &last[given.len()..])))
}

/// Generates values of one VR, with the oddities that its rules mention.
fn stored_text(vr: VR) -> BoxedStrategy<String> {
    match vr {
        VR::DA => "(19|20)[0-9]{2}((0[1-9]|1[0-3])(0[1-9]|3[0-2]))?|x?".boxed(),
        VR::TM => "[012][0-9]([0-6][0-9]([0-6][0-9](\\.[0-9]{1,7})?)?)?|x?".boxed(),
        VR::DT => {
            "(1999|2000)((0[1-9]|1[0-2])(0[1-9]([01][0-9]([0-5][0-9])?)?)?)?(\\+(0[0-3]|1[0-3])[03]0)?|x?".boxed()
        }
        VR::IS | VR::DS | VR::US => "[-+]?[0-2]{0,2}(\\.[0-2])?".boxed(),
        VR::PN => prop_oneof![
            3 => "[ABßæÉ山ﾀﾞสำร\u{AD}e\u{301}ﬁ\u{1112}\u{1174}]{0,4}( ?\\^ ?[ABeß]{0,2}){0,3}(=[山A^ำ]{0,3}){0,2}",
            1 => proptest::sample::select(&HEARD[..]).prop_map(str::to_owned),
        ]
        .boxed(),
        VR::UI => "1\\.[12]{1,2}".boxed(),
        _ => "[ABaßæÉ山ﾀﾞЖสำe\u{301}\u{AD}ﬁ %_^'\"\\[]{0,6}".boxed(),
    }
}

/// Generates impossible range ends that have a meaning.
fn odd_end(vr: VR) -> BoxedStrategy<String> {
    match vr {
        VR::DA => "(19|20)[0-9]{2}(0[0-9]|1[0-3])(0[0-2]|[23][0-9]|99)|00000000|99999999|20(24|00)(0000|9999)|20240115(10|1030|24)".boxed(),
        VR::TM => "24(00(00(\\.0)?)?|:00(:00)?)?|20240115[12][0-9]".boxed(),
        _ => "(1999|2000)(0[0-2]|1[0-2])(0[0-2]|3[01]|99)(24|2400|10)?|00000000|99999999".boxed(),
    }
}

pub(super) fn key_text(vr: VR) -> BoxedStrategy<String> {
    let stored = stored_text(vr);
    match vr {
        VR::DA | VR::TM | VR::DT => {
            let end = prop_oneof![3 => stored.clone(), 1 => odd_end(vr)];
            let loose = match vr {
                VR::DA => prop_oneof![stored.clone(), "20[0-9]{2}(\\.?[01][0-9](\\.?[0-3][0-9])?)?[*]?"].boxed(),
                VR::TM => prop_oneof![stored.clone(), "[01][0-9](:[0-5][0-9](:[0-5][0-9])?)?[*]?"].boxed(),
                _ => stored.clone(),
            };
            prop_oneof![
                3 => loose.clone(),
                2 => (loose.clone(), loose.clone(), " ?").prop_map(|(low, high, space)| format!("{low}{space}-{space}{high}")),
                1 => loose.clone().prop_map(|low| format!("{low}-")),
                1 => loose.clone().prop_map(|high| format!("-{high}")),
                1 => (end.clone(), end.clone()).prop_map(|(low, high)| format!("{low}-{high}")),
                1 => end.clone().prop_map(|low| format!("{low}-")),
                1 => end.prop_map(|high| format!("-{high}")),
                1 => (loose.clone(), loose).prop_map(|(one, other)| format!("{one}\\{other}")),
            ]
            .boxed()
        }
        VR::IS | VR::DS | VR::US => {
            prop_oneof![stored.clone(), (stored.clone(), stored).prop_map(|(a, b)| format!("{a}\\{b}"))].boxed()
        }
        VR::PN => prop_oneof![
            3 => "([abßæé山タﾞสำร\u{AD}ﬁ?*]{0,4}( ?[-\\^] ?[ABe*?]{0,2}){0,3}(=[山a^*?]{0,3}){0,2} ?\\\\?){1,2}",
            1 => proptest::sample::select(&HEARD[..]).prop_map(str::to_owned),
            1 => (proptest::sample::select(&["maier", "smith*", "schmid", "eva", "steven", "o'bri*", "*mith", "s*th", "m?yer", "*an*"][..]), "( [a-j]{1,2})?")
                .prop_map(|(word, more)| format!("{word}{more}")),
        ]
        .boxed(),
        VR::UI => "((1\\.[12]{1,2}|\\*| )\\\\?){1,3}".boxed(),
        _ => "[ABaßæé山タﾞжสำ\u{AD}ﬁ %_^'\"\\[*?\\\\]{0,6}".boxed(),
    }
}

pub(super) fn matched_attributes() -> Vec<&'static Attribute> {
    ATTRIBUTES.iter().filter(|a| a.vr != VR::SQ && a.source != ValueSource::AlwaysEmpty).collect()
}

/// Generates options. Half of the time nothing is negotiated.
pub(super) fn rules() -> impl Strategy<Value = Rules> {
    let any = (any::<[bool; 3]>(), proptest::sample::select(&["", "+0200", "-0500"][..]));
    let any =
        any.prop_map(|([empty_value, multiple_value, fuzzy], zone)| Rules { empty_value, multiple_value, fuzzy, zone });
    prop_oneof![Just(Rules::default()), any]
}

fn case() -> impl Strategy<Value = (&'static Attribute, String, String)> {
    // As many cases for those that are found by the words of a name as for all others.
    let names: Vec<_> = matched_attributes().into_iter().filter(|attribute| attribute.vr == VR::PN).collect();
    let attribute = prop_oneof![proptest::sample::select(matched_attributes()), proptest::sample::select(names)];
    attribute.prop_flat_map(|attribute| {
        let one = stored_text(attribute.vr);
        let stored = match attribute.multiplicity {
            // Some objects have more than one.
            Multiplicity::One => prop_oneof![
                4 => one.clone(),
                1 => prop::collection::vec(one, 1..3).prop_map(|values| values.join("\\")),
            ]
            .boxed(),
            Multiplicity::Many => prop::collection::vec(one, 0..3).prop_map(|values| values.join("\\")).boxed(),
        };
        // Half of the keys are made from the value, or hardly any would match.
        let key = prop_oneof![
            4 => key_text(attribute.vr),
            1 => Just("\"\"".to_owned()),
            4 =>
            (stored.clone(), 0..6_usize, 0..4_usize).prop_map(|(stored, how, place)| match how {
                0 => stored,
                // A `?` for one character, or for two, anywhere.
                4 => stored.chars().enumerate().map(|(at, c)| if at == place { '?' } else { c }).collect(),
                5 => stored.chars().enumerate().map(|(at, c)| if at / 2 == place { '?' } else { c }).collect(),
                1 => format!("{}*", stored.chars().take(2).collect::<String>()),
                2 => format!("*{}", stored.chars().skip(1).collect::<String>()),
                _ => stored.chars().enumerate().map(|(at, c)| if at == 1 { '?' } else { c }).collect(),
            }),
        ];
        (Just(attribute), key, stored)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_slow_one((attribute, key, stored) in case(), rules in rules()) {
        let policy = MatchPolicy {
            several_values: if rules.multiple_value { SeveralValues::AllOf } else { SeveralValues::AnyOf },
            quotation_marks: if rules.empty_value { QuotationMarks::EmptyValue } else { QuotationMarks::Literal },
            names: if rules.fuzzy { NameMatching::Fuzzy } else { NameMatching::LeadingComponents },
            ..MatchPolicy::default()
        };
        let compiled = Matching::of_key(attribute, &KeyValue::Text(key.clone()), &policy);
        let found = compiled.ok().map(|matching| matching.matches_in_zone(&stored, rules.zone));
        let slow = matches(attribute, &key, &stored, rules);
        prop_assert_eq!(found, slow, "{} {:?} {:?} {:?}", attribute.keyword, key, stored, rules);
    }
}

/// Generates a text in any script, without characters that join the one before, and without marks
/// that a search treats as spaces.
fn any_text() -> impl Strategy<Value = String> {
    let is_left_out = |c: char| {
        let becomes_space = !c.is_whitespace() && std::iter::once(c).nfkd().any(char::is_whitespace);
        becomes_space
            || matches!(c, '\\' | '^' | '=' | '\u{3099}' | '\u{309A}' | '\u{FF9E}' | '\u{FF9F}')
            || ('\u{1100}'..='\u{11FF}').contains(&c)
            || ('\u{FFA0}'..='\u{FFDC}').contains(&c)
    };
    prop_oneof!["[A-Za-zßæﬁéĲŒ½№ŉǅİẞ\u{301}\u{AD}ءٱمـ\u{64E}שּׁำสาก่山ガｶａ①㎏℡]{1,8}", "\\PC{1,6}",]
        // A letter first: marks alone are no text to a search.
        .prop_map(move |text: String| {
            let kept = text.chars().filter(|c| !is_left_out(*c)).collect::<String>();
            format!("x{}", in_canonical_order(&kept).trim())
        })
}

/// Drops each mark that Unicode's canonical order puts before the mark that it follows. A search
/// compares in that order, where a `?` for one of two marks stands in another place.
fn in_canonical_order(text: &str) -> String {
    let mut last = 0;
    text.chars()
        .filter(|&c| {
            let classes: Vec<u8> = std::iter::once(c).nfkd().map(canonical_combining_class).collect();
            let (Some(&first_of_c), Some(&last_of_c)) = (classes.first(), classes.last()) else { return true };
            let is_kept = first_of_c == 0 || last <= first_of_c;
            if is_kept {
                last = last_of_c;
            }
            is_kept
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// A stored text that matches the key character by character is found, however it is compared
    /// (C.2.2.2.4).
    #[test]
    fn a_pattern_made_of_the_stored_characters_finds_them(
        text in any_text(),
        ones in prop::collection::vec(any::<bool>(), 8),
        star in prop::option::of((0..8_usize, 0..3_usize)),
        fuzzy in any::<bool>(),
    ) {
        let mut key = String::new();
        for (at, c) in text.chars().enumerate() {
            key.push_str(if star.is_some_and(|(from, _)| at == from) { "*" } else { "" });
            if star.is_none_or(|(from, length)| at < from || at >= from + length) {
                key.push(if ones.get(at) == Some(&true) { '?' } else { c });
            }
        }
        let names = if fuzzy { NameMatching::Fuzzy } else { NameMatching::LeadingComponents };
        let policy = MatchPolicy { names, ..MatchPolicy::default() };
        for keyword in ["StudyDescription", "PatientName", "PatientID"] {
            let attribute = Attribute::by_keyword(keyword).unwrap();
            let matching = Matching::of_key(attribute, &KeyValue::Text(key.clone()), &policy).unwrap();
            prop_assert!(matching.matches(&text), "{} {:?} {:?}", keyword, key, text);
        }
    }
}

#[test]
fn the_slow_one_knows_the_examples_of_the_standard() {
    let check = |keyword: &str, key: &str, stored: &str| {
        matches(Attribute::by_keyword(keyword).unwrap(), key, stored, Rules::default())
    };
    for (keyword, key, stored) in [
        ("PatientName", "SMITH*", "Smith^John"),
        ("PatientName", "müller", "MULLER^X"),
        ("StudyDate", "20060705-20060707", "20060706"),
        ("StudyTime", "1000-1800", "1759"),
        ("StudyInstanceUID", "1.2\\1.3", "1.3"),
        ("ModalitiesInStudy", "MR", "CT\\MR"),
        ("PatientID", "P_*", "P_1"),
        ("InstanceNumber", "1", "01"),
        ("PatientID", "A\\B", "A\\B"),
        ("StudyDescription", "chest", "CT\\CHEST"),
        ("PatientName", "JONES^B", "JONES^A\\JONES^B"),
        ("PatientName", "ส?ราญ", "สำราญ"),
        ("StudyTime", "000000-240000", "2359"),
        ("StudyDate", "20240201-20240231", "20240229"),
    ] {
        assert_eq!(check(keyword, key, stored), Some(true), "{keyword} {key} {stored}");
    }
    for (keyword, key, stored) in [
        ("PatientID", "p1", "P1"),
        ("PatientID", "P_*", "PX1"),
        ("StudyDate", "20060705-20060707", "20060708"),
        ("StudyDate", "20060707-20060705", "20060706"),
        ("PatientName", "SMITH", "SMITHSON"),
        ("StudyInstanceUID", "1.2*", "1.2"),
        ("PatientName", "ส??ราญ", "สำราญ"),
        ("StudyDate", "20240201-20240231", "20240301"),
    ] {
        assert_eq!(check(keyword, key, stored), Some(false), "{keyword} {key} {stored}");
    }
    assert_eq!(check("StudyDate", "a-b", "20060706"), None);
}
