//! Wild card matching over the characters of a text as stored (PS3.4 C.2.2.2.4).
//!
//! Text is compared folded. Folding makes two characters of `ß`, two of the Thai SARA AM, and none
//! of a soft hyphen. A `?` matches one character of the stored text, so such texts are matched
//! character by character.

use crate::model::person_name::StoredCharacter;

/// A compiled pattern that matches character by character.
///
/// It is an automaton with one bit for each position between its elements. Each character of the
/// text advances all positions at once. The time is linear in the text, multiplied by one for each
/// 64 elements.
#[derive(Clone, Debug)]
pub(super) struct CharacterPattern {
    elements: usize,
    /// Positions of stars. Any text may come before the next element.
    stars: Vec<u64>,
    /// Positions before a `?`.
    question_marks: Vec<u64>,
    /// For each character of the pattern, in order: the words that have positions before it, and
    /// those positions.
    fitting: Vec<(char, Vec<(usize, u64)>)>,
}

impl CharacterPattern {
    /// Compiles a pattern. Each run of characters between wild cards is passed to `literal`. It
    /// appends the form that is compared to its second argument.
    pub(super) fn new(pattern: &str, mut literal: impl FnMut(&str, &mut String)) -> Self {
        let (mut stars, mut question_marks, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let mut elements = 0;
        let mut folded = String::new();
        for (number, part) in pattern.split('*').enumerate() {
            if number > 0 {
                stars.push(elements);
            }
            for (number, run) in part.split('?').enumerate() {
                if number > 0 {
                    question_marks.push(elements);
                    elements += 1;
                }
                folded.clear();
                literal(run, &mut folded);
                for c in folded.chars() {
                    places.push((c, elements));
                    elements += 1;
                }
            }
        }
        let words = elements / 64 + 1;
        let bits = |places: Vec<usize>| {
            let mut bits = vec![0; words];
            for at in places {
                set(&mut bits, at);
            }
            bits
        };
        Self { elements, stars: bits(stars), question_marks: bits(question_marks), fitting: by_character(places) }
    }

    /// Whether the characters that `text` yields match the whole pattern.
    pub(super) fn matches(&self, text: impl FnOnce(&mut dyn FnMut(StoredCharacter<'_>))) -> bool {
        let mut places = vec![0; self.stars.len()];
        set(&mut places, 0);
        text(&mut |character| self.advance(&mut places, character));
        places.get(self.elements / 64).is_some_and(|word| word >> (self.elements % 64) & 1 == 1)
    }

    fn advance(&self, places: &mut [u64], character: StoredCharacter<'_>) {
        // A `?` matches the whole character.
        let taken: Vec<u64> = places.iter().zip(&self.question_marks).map(|(place, mark)| place & mark).collect();
        // A `?` may match an ignored mark or skip it.
        if !character.folded.is_empty() {
            let is_one = character.is_divisible || character.folded.chars().nth(1).is_none();
            for c in character.folded.chars() {
                self.advance_by(places, c, is_one);
            }
        }
        let mut carry = 0;
        for (place, taken) in places.iter_mut().zip(taken) {
            *place |= taken << 1 | carry;
            carry = taken >> 63;
        }
    }

    /// Advances by one character of the folded form. A `?` may match it if `is_one` is true.
    fn advance_by(&self, places: &mut [u64], c: char, is_one: bool) {
        let found = self.fitting.binary_search_by_key(&c, |(wanted, _)| *wanted).ok();
        let own = found.and_then(|found| self.fitting.get(found)).map_or([].as_slice(), |(_, words)| words);
        let mut own = own.iter().peekable();
        let mut carry = 0;
        let masks = self.stars.iter().zip(&self.question_marks);
        for (number, (place, (star, mark))) in places.iter_mut().zip(masks).enumerate() {
            let literal = own.next_if(|(of, _)| *of == number).map_or(0, |(_, mask)| *mask);
            let moved = *place & (literal | if is_one { *mark } else { 0 });
            *place = *place & star | moved << 1 | carry;
            carry = moved >> 63;
        }
    }
}

fn set(bits: &mut [u64], at: usize) {
    if let Some(word) = bits.get_mut(at / 64) {
        *word |= 1 << (at % 64);
    }
}

/// Groups the positions of each character into words of 64 bits.
fn by_character(mut places: Vec<(char, usize)>) -> Vec<(char, Vec<(usize, u64)>)> {
    places.sort_unstable();
    let mut fitting: Vec<(char, Vec<(usize, u64)>)> = Vec::new();
    for (c, at) in places {
        let bit = 1 << (at % 64);
        match fitting.last_mut().filter(|(last, _)| *last == c) {
            Some((_, words)) => match words.last_mut().filter(|(word, _)| *word == at / 64) {
                Some((_, mask)) => *mask |= bit,
                None => words.push((at / 64, bit)),
            },
            None => fitting.push((c, vec![(at / 64, bit)])),
        }
    }
    fitting
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::person_name::{for_each_character, push_folded};

    fn matches(pattern: &str, text: &str) -> bool {
        CharacterPattern::new(pattern, push_folded).matches(|each| for_each_character(text, each))
    }

    #[test]
    fn a_question_mark_is_one_character_as_stored() {
        for (pattern, text) in [
            ("ส?ราญ", "สำราญ"),
            ("สำรา?", "สำราญ"),
            ("?????", "สำราญ"),
            ("Stra?e", "Straße"),
            ("Stra??e", "Straße"),
            ("o?ce", "oﬃce"),
            ("M?ller", "Mu\u{308}ller"),
            ("M??ller", "Mu\u{308}ller"),
            ("a?b", "a\u{AD}b"),
            ("ab", "a\u{AD}b"),
            ("*?", "ß"),
            ("", "\u{AD}"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("ส??ราญ", "สำราญ"),
            ("????", "สำราญ"),
            ("??????", "สำราญ"),
            ("Stra???e", "Straße"),
            ("a??b", "a\u{AD}b"),
            ("?", ""),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn plain_characters_are_matched_as_by_the_other(pattern in "[ab山*?]{0,8}", text in "[ab山]{0,10}") {
            let other = super::super::wild_card::WildCard::new(&pattern, |literal, out| out.push_str(literal));
            prop_assert_eq!(matches(&pattern, &text), other.matches(&text));
        }

        #[test]
        fn patterns_may_be_longer_than_a_machine_word(at in 0..200_usize, length in 0..200_usize) {
            let text = "ab".repeat(100);
            let pattern: String = text.chars().enumerate().map(|(n, c)| if n == at { '?' } else { c }).take(length).collect();
            let open = format!("{pattern}*");
            prop_assert!(matches(&open, &text));
            prop_assert_eq!(matches(&pattern, &text), length == 200);
        }
    }
}
