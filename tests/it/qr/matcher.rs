//! Attribute matching once more, slowly and obviously, from the text of PS3.4 C.2.2.2 and the choices that the conformance
//! statement declares. Nothing here calls `model::matching`, `model::datetime` or `model::person_name`: it is what they
//! are held against.

use dcmdex::model::attribute::{ATTRIBUTES, Attribute, LetterCase, Multiplicity, Source};
use dcmdex::model::matching::{KeyValue, MatchPolicy, Matching, NameMatching, QuotationMarks, SeveralValues};
use dicom_core::VR;
use proptest::prelude::*;

/// What was negotiated.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// C.2.2.2.7.
    pub(super) empty_value: bool,
    /// C.2.2.2.8.
    pub(super) multiple_value: bool,
    /// Names by words.
    pub(super) fuzzy: bool,
}

/// Whether a stored value matches a key; `None` where the key is to be refused.
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
        return Some(everything || values(attribute, stored).iter().any(|stored| uids.contains(&stored.as_str())));
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
                _ if attribute.letter_case == LetterCase::Folded => folded(key, true) == folded(stored, true),
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

/// PS3.5 6.2: a backslash is a character of these.
fn has_one_value_only(vr: VR) -> bool {
    matches!(vr, VR::LT | VR::ST | VR::UT | VR::UR)
}

/// C.2.2.3: a key matches when it does so for any value.
fn values(attribute: &Attribute, stored: &str) -> Vec<String> {
    let vr = attribute.vr;
    if attribute.multiplicity == Multiplicity::One || has_one_value_only(vr) {
        return vec![unpadded(vr, stored).to_owned()];
    }
    stored.split('\\').map(|value| unpadded(vr, value).to_owned()).collect()
}

fn one(attribute: &Attribute, key: &str, stored: &str, rules: Rules) -> Option<bool> {
    Some(match attribute.vr {
        VR::DA | VR::TM | VR::DT => return moment(attribute.vr, key, stored),
        VR::IS | VR::DS | VR::US => number(key).map_or(key == stored, |wanted| number(stored) == Some(wanted)),
        VR::AS | VR::AT => key == stored,
        VR::PN => name_by(key, stored, rules),
        _ if attribute.letter_case == LetterCase::Folded => {
            // `?` stands for one character, whether a letter that folds to two is taken for one or for two.
            let long = like(&folded(key, true), &folded(stored, true));
            long || key.contains('?') && like(&folded(key, false), &folded(stored, false))
        }
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

/// C.2.2.2.4. The second argument is a text, in which stars and question marks are themselves.
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

/// Letters of the tests as a reader who does not care for case, accents and width takes them.
fn folded(text: &str, expanded: bool) -> Vec<Part> {
    let mut folded: Vec<Part> = Vec::new();
    for c in text.chars() {
        match c {
            'A'..='Z' => folded.push(Part::Char(c.to_ascii_lowercase())),
            'é' | 'É' | 'è' => folded.push(Part::Char('e')),
            'ü' | 'Ü' => folded.push(Part::Char('u')),
            'ä' | 'Ä' => folded.push(Part::Char('a')),
            'ö' | 'Ö' => folded.push(Part::Char('o')),
            'Ø' | 'ø' => folded.push(Part::Char('o')),
            'Ａ' => folded.push(Part::Char('a')),
            'ß' if expanded => folded.extend([Part::Char('s'); 2]),
            'æ' | 'Æ' if expanded => folded.extend([Part::Char('a'), Part::Char('e')]),
            'Æ' => folded.push(Part::Char('æ')),
            'Ж' => folded.push(Part::Char('ж')),
            'ﾀ' => folded.push(Part::Char('タ')),
            // The half-width voicing mark makes one character with the kana before it, if it can.
            'ﾞ' | '\u{3099}' => match folded.last_mut() {
                Some(last @ Part::Char('タ')) => *last = Part::Char('ダ'),
                _ => folded.push(Part::Char('\u{3099}')),
            },
            '\u{301}' => {}
            other => folded.push(part(other)),
        }
    }
    folded
}

fn number(text: &str) -> Option<f64> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|_| is_number)
}

fn name_by(key: &str, stored: &str, rules: Rules) -> bool {
    if !rules.fuzzy || key.contains('?') {
        return name(key, stored);
    }
    // What the conformance statement says of fuzzy semantic matching: each word begins a word of the name, or sounds like it.
    let words = |name: &str| -> Vec<Vec<Part>> {
        let words = name.split([' ', '^', '=', ',', '.', '-']).map(|word| folded(word, true));
        words.filter(|w: &Vec<_>| !w.iter().all(|part| *part == Part::Any)).collect()
    };
    let without_stars = |word: &Vec<Part>| word.iter().copied().filter(|part| *part != Part::Any).collect::<Vec<_>>();
    let stored = words(stored);
    words(key).iter().all(|wanted| {
        let beginning = without_stars(wanted);
        stored
            .iter()
            .any(|word| word.starts_with(&beginning) || sounds(wanted).iter().any(|code| sounds(word).contains(code)))
    })
}

/// How a word of three to 64 Latin letters sounds, apostrophes aside: one code or two, by the book of Double Metaphone.
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

/// PS3.5 6.2.1 and C.2.2.2.1: by component group.
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
        let key: Vec<_> = key.iter().map(|component| folded(component, true)).collect();
        let group: Vec<_> = group.iter().map(|component| folded(component, true)).collect();
        return group.starts_with(&key);
    }
    let mut group = group;
    let wanted = text.matches('^').count() + 1;
    // PS3.5 6.2.1.1: components may be left out at the end, up to the five that a name has.
    while group.len() < wanted && wanted <= 5 {
        group.push(String::new());
    }
    let group = group.join("^");
    like(&folded(&text, true), &folded(&group, true))
        || text.contains('?') && like(&folded(&text, false), &folded(&group, false))
}

/// Trimmed, without empty ones at the end.
fn components(group: &str) -> Vec<String> {
    let mut components: Vec<String> = group.split('^').map(|component| component.trim().to_owned()).collect();
    while components.len() > 1 && components.last().is_some_and(String::is_empty) {
        components.pop();
    }
    components
}

/// C.2.2.2.1 and C.2.2.2.5 for DA, TM and DT. Values become texts of full length, the order of which is that of time.
fn moment(vr: VR, key: &str, stored: &str) -> Option<bool> {
    let spelled = key.trim_end_matches(['*', ' ']);
    let bounds = |text: &str| bounds(vr, text.trim_matches([' ', '*']));
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
    let first = if is_open(low) { None } else { Some(bounds(low)?.0) };
    let last = if is_open(high) { None } else { Some(bounds(high)?.1) };
    Some(
        stored_at
            .is_some_and(|stored| first.is_none_or(|first| first <= stored) && last.is_none_or(|last| stored <= last)),
    )
}

/// The first and the last moment that a value names.
fn bounds(vr: VR, text: &str) -> Option<(String, String)> {
    match vr {
        VR::DA => date_bounds(text),
        VR::TM => time_bounds(text),
        _ => {
            // DT, without offsets from UTC: those are tested by themselves.
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

/// Values of one VR, with the oddities that its rules speak of.
fn stored_text(vr: VR) -> BoxedStrategy<String> {
    match vr {
        VR::DA => "(19|20)[0-9]{2}((0[1-9]|1[0-3])(0[1-9]|3[0-2]))?|x?".boxed(),
        VR::TM => "[012][0-9]([0-6][0-9]([0-6][0-9](\\.[0-9]{1,7})?)?)?|x?".boxed(),
        VR::DT => "(1999|2000)((0[1-9]|1[0-2])(0[1-9]([01][0-9]([0-5][0-9])?)?)?)?|x?".boxed(),
        VR::IS | VR::DS | VR::US => "[-+]?[0-2]{0,2}(\\.[0-2])?".boxed(),
        VR::PN => prop_oneof![
            3 => "[ABßæÉ山ﾀﾞ]{0,3}( ?\\^ ?[ABe]{0,2}){0,3}(=[山A^]{0,3}){0,2}",
            1 => proptest::sample::select(&HEARD[..]).prop_map(str::to_owned),
        ]
        .boxed(),
        VR::UI => "1\\.[12]{1,2}".boxed(),
        _ => "[ABaßæÉ山ﾀﾞЖ %_^'\"\\[]{0,6}".boxed(),
    }
}

pub(super) fn key_text(vr: VR) -> BoxedStrategy<String> {
    let stored = stored_text(vr);
    match vr {
        VR::DA | VR::TM | VR::DT => {
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
                1 => (loose.clone(), loose).prop_map(|(one, other)| format!("{one}\\{other}")),
            ]
            .boxed()
        }
        VR::IS | VR::DS | VR::US => {
            prop_oneof![stored.clone(), (stored.clone(), stored).prop_map(|(a, b)| format!("{a}\\{b}"))].boxed()
        }
        VR::PN => prop_oneof![
            3 => "([abßæé山タﾞ?*]{0,3}( ?\\^ ?[ABe*?]{0,2}){0,3}(=[山a^*?]{0,3}){0,2} ?\\\\?){1,2}",
            1 => proptest::sample::select(&HEARD[..]).prop_map(str::to_owned),
            1 => (proptest::sample::select(&["maier", "smith*", "schmid", "eva", "steven", "o'bri*"][..]), "( [a-j]{1,2})?")
                .prop_map(|(word, more)| format!("{word}{more}")),
        ]
        .boxed(),
        VR::UI => "((1\\.[12]{1,2}|\\*| )\\\\?){1,3}".boxed(),
        _ => "[ABaßæé山タﾞж %_^'\"\\[*?\\\\]{0,6}".boxed(),
    }
}

pub(super) fn matched_attributes() -> Vec<&'static Attribute> {
    ATTRIBUTES.iter().filter(|a| a.vr != VR::SQ && a.source != Source::AlwaysEmpty).collect()
}

/// Half of the time nothing is negotiated.
pub(super) fn rules() -> impl Strategy<Value = Rules> {
    let any = any::<[bool; 3]>().prop_map(|[empty_value, multiple_value, fuzzy]| Rules {
        empty_value,
        multiple_value,
        fuzzy,
    });
    prop_oneof![Just(Rules::default()), any]
}

fn case() -> impl Strategy<Value = (&'static Attribute, String, String)> {
    proptest::sample::select(matched_attributes()).prop_flat_map(|attribute| {
        let one = stored_text(attribute.vr);
        let stored = match attribute.multiplicity {
            Multiplicity::One => one,
            Multiplicity::Many => prop::collection::vec(one, 0..3).prop_map(|values| values.join("\\")).boxed(),
        };
        // Half of the keys are made from the value, or hardly any would match.
        let key = prop_oneof![
            4 => key_text(attribute.vr),
            1 => Just("\"\"".to_owned()),
            4 =>
            (stored.clone(), 0..4_usize).prop_map(|(stored, how)| match how {
                0 => stored,
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
        let found = compiled.ok().map(|matching| matching.matches(&stored));
        let slow = matches(attribute, &key, &stored, rules);
        prop_assert_eq!(found, slow, "{} {:?} {:?} {:?}", attribute.keyword, key, stored, rules);
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
    ] {
        assert_eq!(check(keyword, key, stored), Some(false), "{keyword} {key} {stored}");
    }
    assert_eq!(check("StudyDate", "a-b", "20060706"), None);
}
