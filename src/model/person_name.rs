//! Person names (PS3.5 6.2.1) and other text, in the form in which they are searched.
//!
//! PS3.4 C.2.2.2.1 leaves it to the SCP whether case and accents matter when person names are
//! matched. Here they do not matter. Names are compared in a normal form, so a user who types
//! `Muller` finds `Müller`.

use std::sync::OnceLock;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{canonical_combining_class, decompose_compatible};
use unicode_normalization::{IsNormalized, is_nfc_quick};

/// Number of components in one group: family name, given name, middle name, prefix, suffix (PS3.5
/// 6.2.1.1).
pub const COMPONENTS: usize = 5;

/// Maximum number of code points that are joined into one character. A longer run is cut, so that
/// folding takes linear time. No script joins more than a handful.
const MAX_JOINED: usize = 32;

/// One character of a stored text, for a `?` to match (PS3.4 C.2.2.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredCharacter<'a> {
    /// Folded form. It is empty for a mark that is ignored. It has several characters for `ß` or
    /// SARA AM.
    pub folded: &'a str,
    /// Whether `?` may also match each character of the folded form alone, such as each `s` of `ß`.
    pub is_divisible: bool,
}

/// Splits a name into its alphabetic, ideographic and phonetic component group (PS3.5 6.2.1.2). The
/// text is not changed. A missing group is empty.
#[must_use]
pub fn groups(name: &str) -> [&str; 3] {
    let mut groups = name.splitn(3, '=');
    [groups.next().unwrap_or_default(), groups.next().unwrap_or_default(), groups.next().unwrap_or_default()]
}

/// Returns the three component groups of a name, each in [`normal_form`].
#[must_use]
pub fn normal_groups(name: &str) -> [String; 3] {
    groups(name).map(normal_form)
}

/// Returns one component group in normal form.
///
/// Each component is folded (see [`fold`]) and trimmed. Empty components at the end are removed,
/// because PS3.5 6.2.1.1 lets a writer omit them.
#[must_use]
pub fn normal_form(group: &str) -> String {
    let mut normal = String::with_capacity(group.len());
    push_normal_form(group, &mut normal);
    normal
}

/// Appends [`normal_form`] of a component group to `out`.
pub fn push_normal_form(group: &str, out: &mut String) {
    let start = out.len();
    // Most names are all ASCII. Such a name takes one pass.
    for (at, component) in group.split('^').enumerate() {
        if at > 0 {
            out.push('^');
        }
        let component_start = out.len();
        push_folded(component.trim(), out);
        trim_tail(component_start, out);
    }
    while out.len() > start && out.ends_with('^') {
        out.pop();
    }
}

/// Splits a component group in normal form into words. Spaces, delimiters, commas, full stops and
/// hyphens separate words.
pub fn words(normal: &str) -> impl Iterator<Item = &str> {
    normal.split(is_between_words).filter(|word| !word.is_empty())
}

/// Whether a character of a normal form separates words.
#[must_use]
pub fn is_between_words(c: char) -> bool {
    matches!(c, '^' | '=' | ',' | '.' | '-' | '\0') || c.is_whitespace()
}

/// Folds text to the form in which it is compared if case does not matter.
///
/// Compatibility forms and widths are made equal (NFKC), and case is folded. The accents of Latin,
/// Greek and Cyrillic and the vowel points of Hebrew and Arabic are removed. `ø` and similar
/// letters become plain letters. The result is composed. So a Hangul syllable is one character, and
/// so is a kana with its voicing mark.
#[must_use]
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    push_folded(text, &mut folded);
    folded
}

/// Appends [`fold`] of a text to `out`.
pub fn push_folded(text: &str, out: &mut String) {
    let start = out.len();
    if text.is_ascii() {
        out.push_str(text);
        if let Some(appended) = out.get_mut(start..) {
            appended.make_ascii_lowercase();
        }
    } else if !push_folded_by_character(text, out) {
        out.truncate(start);
        push_folded_by_unicode(text, out);
    }
}

/// Whether some character of a text folds to none or to several, or may join with its neighbour.
///
/// In this case the characters of [`fold`] do not correspond one to one to those of the text.
#[must_use]
pub fn folds_unevenly(text: &str) -> bool {
    // A mark that folds to a space may be at an end of the text, where spaces are ignored.
    let is_one = |folded: &str| {
        let mut chars = folded.chars();
        chars.next().is_some_and(|c| !c.is_whitespace()) && chars.next().is_none()
    };
    !text.is_ascii()
        && text.chars().any(|c| match c {
            '\0'..='\x7F' => false,
            _ if is_itself(c) || c.is_whitespace() => false,
            _ if is_combining(c) => true,
            other => alphabets().get(other as usize).is_none_or(|folded| !is_one(folded)),
        })
}

/// Calls `each` with every character of a stored text.
///
/// Characters that folding joins count as one. Examples are a kana with its half-width voicing
/// mark, and the jamo of a syllable. The folded forms, concatenated, are [`fold`] of the text.
pub fn for_each_character(text: &str, mut each: impl FnMut(StoredCharacter<'_>)) {
    let mut give = |joined: &str| {
        let folded = fold(joined);
        let is_ligature = folded.bytes().all(|byte| byte.is_ascii_lowercase());
        each(StoredCharacter { folded: &folded, is_divisible: is_ligature || joined.chars().nth(1).is_some() });
    };
    // `joined` is a character with everything that joins it. `marks` are the marks after it that do
    // not join it. A code point after these marks may still join the character.
    let (mut joined, mut marks) = (String::new(), String::new());
    let mut code_points = 0;
    for c in text.chars() {
        if code_points > 0 && code_points < MAX_JOINED && joins(&joined, &marks, c) {
            joined.push_str(&marks);
            marks.clear();
            joined.push(c);
        } else if code_points < MAX_JOINED && (is_stripped(c) || canonical_combining_class(c) != 0) {
            marks.push(c);
        } else {
            if !joined.is_empty() {
                give(&joined);
            }
            for mark in marks.chars() {
                give(mark.encode_utf8(&mut [0; 4]));
            }
            joined.clear();
            marks.clear();
            joined.push(c);
            code_points = 0;
        }
        code_points += 1;
    }
    if !joined.is_empty() {
        give(&joined);
    }
    for mark in marks.chars() {
        give(mark.encode_utf8(&mut [0; 4]));
    }
}

/// Whether folding `before`, `marks` and `c` together gives another result than folding each alone.
fn joins(before: &str, marks: &str, c: char) -> bool {
    if (before.is_empty() && marks.is_empty()) || c.is_ascii() || is_itself(c) {
        return false;
    }
    let mut may_join = false;
    decompose_compatible(c, |part| {
        let stands_alone =
            canonical_combining_class(part) == 0 && is_nfc_quick(std::iter::once(part)) != IsNormalized::Maybe;
        may_join |= !stands_alone;
    });
    may_join && {
        let mut apart = fold(before);
        push_folded(marks, &mut apart);
        push_folded(c.encode_utf8(&mut [0; 4]), &mut apart);
        apart != fold(&format!("{before}{marks}{c}"))
    }
}

/// Calls `each` with every character of a stored component group. Everything that [`normal_form`]
/// removes is left out.
pub fn for_each_character_of_group(group: &str, mut each: impl FnMut(StoredCharacter<'_>)) {
    let delimiter = StoredCharacter { folded: "^", is_divisible: true };
    let space = StoredCharacter { folded: " ", is_divisible: true };
    let nothing = StoredCharacter { folded: "", is_divisible: true };
    let mut delimiters = 0;
    for (at, component) in group.split('^').enumerate() {
        delimiters += usize::from(at > 0);
        if fold(component).trim().is_empty() {
            continue;
        }
        for _ in 0..std::mem::take(&mut delimiters) {
            each(delimiter);
        }
        // Folding may create spaces at the ends of a component, such as of U+00A8. They belong to
        // ignored marks and are left out.
        let mut spaces = 0;
        let mut has_begun = false;
        for_each_character(component.trim(), |character| {
            if !character.folded.is_empty() && character.folded.trim().is_empty() {
                spaces += 1;
                return;
            }
            if !character.folded.is_empty() {
                let kept = if has_begun { space } else { nothing };
                (0..std::mem::take(&mut spaces)).for_each(|_| each(kept));
                has_begun = true;
            }
            each(character);
        });
        (0..spaces).for_each(|_| each(nothing));
    }
}

/// Folds by the definition. This takes microseconds, and a search folds every name that it
/// examines.
fn push_folded_by_unicode(text: &str, out: &mut String) {
    out.extend(
        text.chars()
            .map(neutral)
            .nfkd()
            .filter(|c| !is_stripped(*c))
            .flat_map(char::to_lowercase)
            .flat_map(plain_letters)
            .nfc(),
    );
}

/// Folds one character at a time. Returns false if the text has a character that may join with its
/// neighbour.
///
/// Characters that never join are the letters of Latin, Greek and Cyrillic, kana, ideographs and
/// Hangul syllables.
fn push_folded_by_character(text: &str, out: &mut String) -> bool {
    let table = alphabets();
    for c in text.chars() {
        match c {
            _ if is_itself(c) => out.push(c),
            _ if is_combining(c) => return false,
            other => match table.get(other as usize) {
                Some(folded) => out.push_str(folded),
                None => return false,
            },
        }
    }
    true
}

/// Whether a character is a kana, an ideograph or a Hangul syllable that folds to itself and never
/// joins with the characters before it.
fn is_itself(c: char) -> bool {
    matches!(c,
        '\u{3041}'..='\u{3096}'
        | '\u{30A1}'..='\u{30FA}'
        | 'ー'
        | '\u{3400}'..='\u{4DBF}'
        | '\u{4E00}'..='\u{9FFF}'
        | '\u{AC00}'..='\u{D7A3}')
}

/// Whether a character is a mark below [`ALPHABETS_END`]. Such a mark joins with the character
/// before it.
fn is_combining(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36F}' | '\u{483}'..='\u{489}')
}

/// Returns the folded form of each character below [`ALPHABETS_END`].
fn alphabets() -> &'static [Box<str>] {
    static TABLE: OnceLock<Vec<Box<str>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let fold = |code| {
            let mut folded = String::new();
            if let Some(c) = char::from_u32(code) {
                push_folded_by_unicode(c.encode_utf8(&mut [0; 4]), &mut folded);
            }
            folded.into_boxed_str()
        };
        (0..ALPHABETS_END).map(fold).collect()
    })
}

/// First code point after the letters of Latin, Greek and Cyrillic. Extensions that names do not
/// use come later.
const ALPHABETS_END: u32 = 0x530;

/// Replaces characters such as `＊`, `？` and `＝`, whose compatibility form contains a delimiter or a
/// wild card.
///
/// They must not become a delimiter or a wild card. They all become the same character, so a search
/// does not tell them apart.
fn neutral(c: char) -> char {
    if c.is_ascii() || c.is_alphanumeric() {
        return c;
    }
    if c == '\u{B4}' {
        return '\'';
    }
    let mut special = false;
    decompose_compatible(c, |part| special |= matches!(part, '*' | '?' | '^' | '=' | '\\'));
    if special { char::REPLACEMENT_CHARACTER } else { c }
}

/// Whether a character is a mark or an invisible character that a search ignores.
///
/// Voicing marks of kana (U+3099, U+309A) and the vowel signs of Indic scripts are not ignored:
/// they make other syllables.
fn is_stripped(c: char) -> bool {
    matches!(c,
        // Combining marks of Latin, Greek and Cyrillic.
        '\u{300}'..='\u{36F}' | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}' | '\u{FE20}'..='\u{FE2F}'
        // Hebrew points and accents.
        | '\u{591}'..='\u{5BD}' | '\u{5BF}' | '\u{5C1}' | '\u{5C2}' | '\u{5C4}' | '\u{5C5}' | '\u{5C7}'
        // Arabic points, and the tatweel, which only stretches a word.
        | '\u{610}'..='\u{61A}' | '\u{640}' | '\u{64B}'..='\u{65F}' | '\u{670}' | '\u{6D6}'..='\u{6DC}'
        | '\u{6DF}'..='\u{6E4}' | '\u{6E7}' | '\u{6E8}' | '\u{6EA}'..='\u{6ED}'
        // Soft hyphen, joiners, byte order mark, variation selectors.
        | '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}' | '\u{FE00}'..='\u{FE0F}'
        | '\u{E0100}'..='\u{E01EF}')
}

/// Replaces letters, apostrophes and hyphens that Unicode does not decompose by the plain
/// characters that a reader sees in them.
fn plain_letters(c: char) -> impl Iterator<Item = char> {
    let (first, second) = match c {
        'ß' => ('s', Some('s')),
        'æ' => ('a', Some('e')),
        'œ' => ('o', Some('e')),
        'þ' => ('t', Some('h')),
        'ø' => ('o', None),
        'ł' => ('l', None),
        'đ' | 'ð' => ('d', None),
        'ħ' => ('h', None),
        'ı' => ('i', None),
        'ŧ' => ('t', None),
        'ŋ' => ('n', None),
        'ĸ' => ('k', None),
        'ς' => ('σ', None),
        '\u{2018}' | '\u{2019}' | '\u{2BC}' => ('\'', None),
        '\u{2010}'..='\u{2015}' | '\u{2212}' => ('-', None),
        // This program and others decode some characters of ISO 2022 IR 87 differently. Both
        // results fold to the same.
        '\u{301C}' => ('~', None),
        '\u{2225}' => ('\u{2016}', None),
        other => (other, None),
    };
    std::iter::once(first).chain(second)
}

/// Trims the text that was appended from `start` on. Folding can put spaces at the ends: U+00A8 is
/// a space with a mark.
fn trim_tail(start: usize, out: &mut String) {
    let Some(tail) = out.get(start..) else { return };
    let kept = tail.trim_end().len();
    let leading = tail.len() - tail.trim_start().len();
    out.truncate(start + kept);
    if leading > 0 && kept > 0 {
        out.drain(start..start + leading);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn case_accents_and_width_do_not_count() {
        for (one, other) in [
            ("MÜLLER", "muller"),
            ("Ærø", "aero"),
            ("Łódź", "lodz"),
            ("Straße", "STRASSE"),
            ("STRAẞE", "strasse"),
            ("ＳＭＩＴＨ", "smith"),
            ("ﾔﾏﾀﾞ", "ヤマダ"),
            ("Дмитрий Королёв", "ДМИТРИИ КОРОЛЕВ"),
            ("Διονυσιος", "ΔΙΟΝΎΣΙΟΣ"),
            ("שָׁלוֹם", "שלום"),
            ("أَحْمَد", "احمد"),
            ("İstanbul", "ISTANBUL"),
            ("O’Brien", "o'brien"),
            ("Nguyễn", "NGUYEN"),
            ("Þór", "thor"),
            ("e\u{301}", "É"),
            ("あ〜‖", "あ～∥"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
    }

    #[test]
    fn what_makes_another_syllable_counts() {
        assert_ne!(fold("カキ"), fold("ガギ"));
        assert_ne!(fold("はは"), fold("ばば"));
        assert_ne!(fold("कमल"), fold("कमला"));
        assert_ne!(fold("山"), fold("川"));
    }

    #[test]
    fn a_syllable_is_one_character() {
        assert_eq!(fold("김희중").chars().count(), 3);
        assert_eq!(fold("\u{1112}\u{1174}").chars().count(), 1, "two Jamo, one syllable");
        assert_eq!(fold("ダ").chars().count(), 1);
        assert_eq!(fold("ﾀﾞ").chars().count(), 1);
    }

    fn characters(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for_each_character(text, |character| found.push(character.folded.to_owned()));
        found
    }

    #[test]
    fn a_character_as_stored_may_fold_to_none_or_several() {
        assert_eq!(characters("Straße"), ["s", "t", "r", "a", "ss", "e"]);
        assert_eq!(characters("สำราญ"), ["ส", "\u{E4D}\u{E32}", "ร", "า", "ญ"]);
        assert_eq!(characters("Mu\u{308}"), ["m", "u", ""]);
        assert_eq!(characters("ﾔﾏﾀﾞ"), ["ヤ", "マ", "ダ"]);
        assert_eq!(characters("\u{1112}\u{1174}x"), ["희", "x"]);
        for even in ["", "Smith", "Müller", "山田", "ヤマダ", "김희중", "Дмитрий"] {
            assert!(!folds_unevenly(even), "{even}");
        }
        for uneven in ["Straße", "สำราญ", "Mu\u{308}ller", "ﾔﾏﾀﾞ", "ﬁ", "\u{AD}x"] {
            assert!(folds_unevenly(uneven), "{uneven}");
        }
    }

    #[test]
    fn a_group_is_made_of_the_characters_of_its_normal_form() {
        let of = |group| {
            let mut found = String::new();
            for_each_character_of_group(group, |character| found.push_str(character.folded));
            found
        };
        for group in [" Smith ^ Jo hn ^^ ^", "^JOHN", "¨^¨ x", "a^\u{AD}", "ß  æ", "a¨", "山田　^　太郎", "\u{AD} a"]
        {
            assert_eq!(of(group), normal_form(group), "{group}");
        }
    }

    #[test]
    fn nothing_becomes_a_delimiter_or_a_wild_card() {
        for odd in ["＊", "？", "＾", "＝", "＼", "≠", "⁇", "﹖"] {
            assert!(!fold(odd).contains(['*', '?', '^', '=', '\\']), "{odd}");
        }
    }

    #[test]
    fn components_are_trimmed_and_empty_ones_at_the_end_left_out() {
        assert_eq!(normal_form(" Smith ^ John ^^ ^"), "smith^john");
        assert_eq!(normal_form("山田　^　太郎"), "山田^太郎");
        assert_eq!(normal_form("^^"), "");
        assert_eq!(normal_form("^JOHN"), "^john");
        assert_eq!(normal_form("¨^¨ x"), "^x");
    }

    #[test]
    fn a_name_has_three_groups() {
        assert_eq!(
            normal_groups("Yamada^Tarou=山田^太郎=やまだ^たろう"),
            ["yamada^tarou", "山田^太郎", "やまだ^たろう"]
        );
        assert_eq!(normal_groups("=山田"), ["", "山田", ""]);
        assert_eq!(normal_groups(""), ["", "", ""]);
    }

    #[test]
    fn every_character_folds_the_same_either_way() {
        for c in (0..=0xD7A3).filter_map(char::from_u32) {
            let text = format!("é{c}");
            let (mut fast, mut slow) = (String::new(), String::new());
            push_folded(&text, &mut fast);
            push_folded_by_unicode(&text, &mut slow);
            assert_eq!(fast, slow, "U+{:04X}", u32::from(c));
        }
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing(text in any::<String>()) {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }

        #[test]
        fn folding_by_character_is_folding_by_the_definition(text in "[ -~]{0,4}[\u{A0}-\u{17F}\u{370}-\u{52F}あ-んァ-ヶ一-三가-힣\u{AD}]{0,8}\\PC{0,2}") {
            let (mut fast, mut slow) = (String::new(), String::new());
            push_folded(&text, &mut fast);
            push_folded_by_unicode(&text, &mut slow);
            prop_assert_eq!(fast, slow);
        }

        #[test]
        fn characters_put_together_are_the_folded_text(text in "[a-zß\u{301}\u{308}สำราญ่ﾔﾀﾞガ\u{3099}가\u{1112}\u{1174}\u{11AB}\u{AD}ﬁ¨ ]{0,12}\\PC{0,2}") {
            prop_assert_eq!(characters(&text).concat(), fold(&text));
        }

        #[test]
        fn what_folds_evenly_has_as_many_characters(text in "[a-zßüéあ가山\u{301}Ж ]{0,8}") {
            if !folds_unevenly(&text) {
                prop_assert_eq!(fold(&text).chars().count(), text.chars().count());
            }
        }

        #[test]
        fn the_normal_form_of_ascii_takes_no_other_road(text in "[ -~]{0,20}") {
            // U+00AD folds to nothing, but it makes the text not ASCII.
            let slow = normal_form(&format!("\u{AD}{}", text));
            prop_assert_eq!(normal_form(&text), slow);
        }
    }
}
