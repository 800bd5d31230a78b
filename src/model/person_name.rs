//! Person names (PS3.5 6.2.1) and other text in the form in which they are searched.
//!
//! PS3.4 C.2.2.2.1 leaves it to the SCP whether case, accents and the like count when person names are matched. Here they do
//! not: names are compared in a normal form, and a desk that types `Muller` finds `Müller`.

use std::sync::OnceLock;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::decompose_compatible;

/// The components of one group: family name, given name, middle name, prefix, suffix (PS3.5 6.2.1.1).
pub const COMPONENTS: usize = 5;

/// What becomes of letters that stand for two, such as `ß` and `æ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ligatures {
    /// They become the two that they stand for: `Straße` is `Strasse`.
    Expanded,
    /// They stay one character, for a `?` to match.
    Kept,
}

/// The three component groups of a name: alphabetic, ideographic, phonetic (PS3.5 6.2.1.2), as written; empty where absent.
#[must_use]
pub fn groups(name: &str) -> [&str; 3] {
    let mut groups = name.splitn(3, '=');
    [groups.next().unwrap_or_default(), groups.next().unwrap_or_default(), groups.next().unwrap_or_default()]
}

/// The three component groups of a name, each in [`normal_form`].
#[must_use]
pub fn normal_groups(name: &str) -> [String; 3] {
    groups(name).map(normal_form)
}

/// One component group in normal form: each component folded (see [`fold`]) and trimmed, empty components at the end left
/// out (PS3.5 6.2.1.1 lets a writer leave them out, so they mean nothing).
#[must_use]
pub fn normal_form(group: &str) -> String {
    let mut normal = String::with_capacity(group.len());
    push_normal_form(group, Ligatures::Expanded, &mut normal);
    normal
}

/// Appends [`normal_form`] of a component group to `out`.
pub fn push_normal_form(group: &str, ligatures: Ligatures, out: &mut String) {
    let start = out.len();
    // A name that is all ASCII, as most are, is done in one pass.
    for (at, component) in group.split('^').enumerate() {
        if at > 0 {
            out.push('^');
        }
        let component_start = out.len();
        push_folded(component.trim(), ligatures, out);
        trim_tail(component_start, out);
    }
    while out.len() > start && out.ends_with('^') {
        out.pop();
    }
}

/// The words of a component group in normal form: what stands between spaces, delimiters, commas, full stops and hyphens.
pub fn words(normal: &str) -> impl Iterator<Item = &str> {
    normal.split(is_between_words).filter(|word| !word.is_empty())
}

/// Whether a character of a normal form belongs to no word.
#[must_use]
pub fn is_between_words(c: char) -> bool {
    matches!(c, '^' | '=' | ',' | '.' | '-' | '\0') || c.is_whitespace()
}

/// Text in the form in which it is compared where case does not count: compatibility forms and widths made one (NFKC), case
/// folded, the accents of Latin, Greek and Cyrillic and the vowel points of Hebrew and Arabic stripped, `ø` and its like
/// made plain letters. What is left is composed, so that a Hangul syllable or a kana with its voicing mark is one character.
#[must_use]
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    push_folded(text, Ligatures::Expanded, &mut folded);
    folded
}

/// Appends [`fold`] of a text to `out`.
pub fn push_folded(text: &str, ligatures: Ligatures, out: &mut String) {
    let start = out.len();
    if text.is_ascii() {
        out.push_str(text);
        if let Some(appended) = out.get_mut(start..) {
            appended.make_ascii_lowercase();
        }
    } else if !push_folded_by_character(text, ligatures, out) {
        out.truncate(start);
        push_folded_by_unicode(text, ligatures, out);
    }
}

/// Folding by the definition. It takes microseconds, and a search folds every name that it looks at.
fn push_folded_by_unicode(text: &str, ligatures: Ligatures, out: &mut String) {
    out.extend(
        text.chars()
            .map(neutral)
            .nfkd()
            .filter(|c| !is_stripped(*c))
            .flat_map(char::to_lowercase)
            .flat_map(move |c| plain_letters(c, ligatures))
            .nfc(),
    );
}

/// Folding one character at a time, where all characters are of the kind that never joins with a neighbour: the letters of
/// Latin, Greek and Cyrillic, kana, ideographs and Hangul syllables. False where there is another.
fn push_folded_by_character(text: &str, ligatures: Ligatures, out: &mut String) -> bool {
    static TABLES: [OnceLock<Vec<Box<str>>>; 2] = [const { OnceLock::new() }; 2];
    let table = TABLES[ligatures as usize].get_or_init(|| {
        let fold = |code| {
            let mut folded = String::new();
            if let Some(c) = char::from_u32(code) {
                push_folded_by_unicode(c.encode_utf8(&mut [0; 4]), ligatures, &mut folded);
            }
            folded.into_boxed_str()
        };
        (0..ALPHABETS_END).map(fold).collect()
    });
    for c in text.chars() {
        match c {
            '\u{3041}'..='\u{3096}'
            | '\u{30A1}'..='\u{30FA}'
            | 'ー'
            | '\u{3400}'..='\u{4DBF}'
            | '\u{4E00}'..='\u{9FFF}'
            | '\u{AC00}'..='\u{D7A3}' => out.push(c),
            '\u{300}'..='\u{36F}' | '\u{483}'..='\u{489}' => return false,
            other => match table.get(other as usize) {
                Some(folded) => out.push_str(folded),
                None => return false,
            },
        }
    }
    true
}

/// After the last letter of Latin, Greek and Cyrillic, but for extensions that names do without.
const ALPHABETS_END: u32 = 0x530;

/// Characters whose compatibility form has a delimiter or a wild card in it (`＊`, `？`, `＝`, …) must not become one. They
/// are all alike to a search.
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

/// Marks and invisible characters that do not count in a search. Voicing marks of kana (U+3099, U+309A) and the vowel signs
/// of Indic scripts do: they make other syllables.
fn is_stripped(c: char) -> bool {
    matches!(c,
        // Combining marks of Latin, Greek and Cyrillic.
        '\u{300}'..='\u{36F}' | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}' | '\u{FE20}'..='\u{FE2F}'
        // Hebrew points and accents.
        | '\u{591}'..='\u{5BD}' | '\u{5BF}' | '\u{5C1}' | '\u{5C2}' | '\u{5C4}' | '\u{5C5}' | '\u{5C7}'
        // Arabic points, and the tatweel that only stretches a word.
        | '\u{610}'..='\u{61A}' | '\u{640}' | '\u{64B}'..='\u{65F}' | '\u{670}' | '\u{6D6}'..='\u{6DC}'
        | '\u{6DF}'..='\u{6E4}' | '\u{6E7}' | '\u{6E8}' | '\u{6EA}'..='\u{6ED}'
        // Soft hyphen, joiners, byte order mark, variation selectors.
        | '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}' | '\u{FE00}'..='\u{FE0F}'
        | '\u{E0100}'..='\u{E01EF}')
}

/// Letters, apostrophes and hyphens that Unicode does not decompose, though a reader takes them for the plain ones.
fn plain_letters(c: char, ligatures: Ligatures) -> impl Iterator<Item = char> {
    let (first, second) = match (c, ligatures) {
        ('ß', Ligatures::Expanded) => ('s', Some('s')),
        ('æ', Ligatures::Expanded) => ('a', Some('e')),
        ('œ', Ligatures::Expanded) => ('o', Some('e')),
        ('þ', Ligatures::Expanded) => ('t', Some('h')),
        ('ø', _) => ('o', None),
        ('ł', _) => ('l', None),
        ('đ' | 'ð', _) => ('d', None),
        ('ħ', _) => ('h', None),
        ('ı', _) => ('i', None),
        ('ŧ', _) => ('t', None),
        ('ŋ', _) => ('n', None),
        ('ĸ', _) => ('k', None),
        ('ς', _) => ('σ', None),
        ('\u{2018}' | '\u{2019}' | '\u{2BC}', _) => ('\'', None),
        ('\u{2010}'..='\u{2015}' | '\u{2212}', _) => ('-', None),
        // As ISO 2022 IR 87 is read here, and as others read it.
        ('\u{301C}', _) => ('~', None),
        ('\u{2225}', _) => ('\u{2016}', None),
        (other, _) => (other, None),
    };
    std::iter::once(first).chain(second)
}

/// Trims what was appended from `start` on: folding can bring spaces to the ends (U+00A8 is a space with a mark).
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

    #[test]
    fn ligatures_can_stay_one_character() {
        let mut kept = String::new();
        push_folded("STRAẞE Ærø", Ligatures::Kept, &mut kept);
        assert_eq!(kept, "straße æro");
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
            push_folded(&text, Ligatures::Expanded, &mut fast);
            push_folded_by_unicode(&text, Ligatures::Expanded, &mut slow);
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
            for ligatures in [Ligatures::Expanded, Ligatures::Kept] {
                let (mut fast, mut slow) = (String::new(), String::new());
                push_folded(&text, ligatures, &mut fast);
                push_folded_by_unicode(&text, ligatures, &mut slow);
                prop_assert_eq!(fast, slow);
            }
        }

        #[test]
        fn the_normal_form_of_ascii_takes_no_other_road(text in "[ -~]{0,20}") {
            // A character that folds to nothing makes the text not ASCII.
            let slow = normal_form(&format!("\u{AD}{}", text));
            prop_assert_eq!(normal_form(&text), slow);
        }
    }
}
