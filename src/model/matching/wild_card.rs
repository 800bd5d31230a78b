//! Wild card patterns (PS3.4 C.2.2.2.4). Only `*` and `?` are special.

use memchr::memmem::Finder;

/// A compiled pattern.
///
/// The segments between the stars are searched from left to right, each only once. There is no
/// backtracking. The time is linear in the text, multiplied by one for each 64 characters of the
/// longest segment with a `?`. If the text is shorter than the pattern without stars, the test
/// takes no time.
#[derive(Clone, Debug)]
pub(super) struct WildCard {
    shape: PatternShape,
    /// Minimum length of a matching text in bytes.
    shortest: usize,
}

#[derive(Clone, Debug)]
enum PatternShape {
    /// The pattern has no star.
    Whole(Segment),
    /// The pattern is `first*middle*…*last`. `first` and `last` may be empty.
    Parts { first: Segment, middle: Box<[Segment]>, last: Segment },
}

#[derive(Clone, Debug)]
enum Segment {
    Literal(Box<Literal>),
    Masked(Box<Masked>),
}

/// Plain text with a prepared searcher. `str::find` would prepare it again for each value.
#[derive(Clone, Debug)]
struct Literal {
    text: String,
    finder: Finder<'static>,
}

impl Literal {
    fn new(text: String) -> Box<Self> {
        let finder = Finder::new(&text).into_owned();
        Box::new(Self { text, finder })
    }
}

/// A run of characters between wild cards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CharacterRun {
    pub(super) text: String,
    /// Whether every matching text begins with it.
    pub(super) starts: bool,
    /// Whether every matching text ends with it.
    pub(super) ends: bool,
}

impl WildCard {
    /// Compiles a pattern. Each run of characters between wild cards is passed to `literal`. It
    /// appends the form that is compared to its second argument.
    pub(super) fn new(pattern: &str, mut literal: impl FnMut(&str, &mut String)) -> Self {
        let mut segments: Vec<_> = pattern.split('*').map(|segment| Segment::new(segment, &mut literal)).collect();
        let shortest = segments.iter().map(Segment::shortest).sum();
        let last = segments.pop().unwrap_or_else(|| Segment::Literal(Literal::new(String::new())));
        let shape = if segments.is_empty() {
            PatternShape::Whole(last)
        } else {
            let first = segments.remove(0);
            segments.retain(|segment| segment.shortest() > 0);
            PatternShape::Parts { first, middle: segments.into(), last }
        };
        Self { shape, shortest }
    }

    /// Whether the whole text matches the pattern.
    pub(super) fn matches(&self, text: &str) -> bool {
        if text.len() < self.shortest {
            return false;
        }
        match &self.shape {
            PatternShape::Whole(segment) => segment.at_start(text) == Some(text.len()),
            PatternShape::Parts { first, middle, last } => {
                let Some(rest) = first.at_start(text).and_then(|length| text.get(length..)) else { return false };
                let Some(mut rest) = last.at_end(rest).and_then(|length| rest.get(..rest.len() - length)) else {
                    return false;
                };
                for segment in middle {
                    let Some(after) = segment.find_end(rest).and_then(|end| rest.get(end..)) else { return false };
                    rest = after;
                }
                true
            }
        }
    }

    /// Returns the text with which every matching text begins.
    pub(super) fn prefix(&self) -> String {
        let (PatternShape::Whole(first) | PatternShape::Parts { first, .. }) = &self.shape;
        match first {
            Segment::Literal(literal) => literal.text.clone(),
            Segment::Masked(masked) => masked.chars.iter().map_while(|position| *position).collect(),
        }
    }

    /// Returns the literal runs between wild cards. Every matching text contains each of them.
    /// `starts` and `ends` mark runs that must begin or end the text.
    pub(super) fn literals(&self) -> Vec<CharacterRun> {
        let (first, middle, last) = match &self.shape {
            PatternShape::Whole(segment) => (segment, [].as_slice(), None),
            PatternShape::Parts { first, middle, last } => (first, middle.as_ref(), Some(last)),
        };
        let is_whole = last.is_none();
        let of_segment = |segment: &Segment, starts: bool, ends: bool| -> Vec<CharacterRun> {
            match segment {
                Segment::Literal(literal) => vec![CharacterRun { text: literal.text.clone(), starts, ends }],
                Segment::Masked(masked) => {
                    let runs: Vec<String> =
                        masked.chars.split(Option::is_none).map(|run| run.iter().flatten().collect()).collect();
                    let after = runs.len();
                    let run =
                        |(at, text)| CharacterRun { text, starts: starts && at == 0, ends: ends && at + 1 == after };
                    runs.into_iter().enumerate().map(run).collect()
                }
            }
        };
        let mut runs = of_segment(first, true, is_whole);
        runs.extend(middle.iter().flat_map(|segment| of_segment(segment, false, false)));
        runs.extend(last.into_iter().flat_map(|segment| of_segment(segment, false, true)));
        runs.retain(|run| !run.text.is_empty());
        runs
    }
}

impl Segment {
    fn new(segment: &str, literal: &mut impl FnMut(&str, &mut String)) -> Self {
        let mut runs = segment.split('?');
        let mut text = String::new();
        literal(runs.next().unwrap_or_default(), &mut text);
        let mut chars: Option<Vec<Option<char>>> = None;
        for run in runs {
            let chars = chars.get_or_insert_with(|| text.chars().map(Some).collect());
            chars.push(None);
            text.clear();
            literal(run, &mut text);
            chars.extend(text.chars().map(Some));
        }
        chars.map_or_else(|| Self::Literal(Literal::new(text)), |chars| Self::Masked(Box::new(Masked::new(chars))))
    }

    fn shortest(&self) -> usize {
        match self {
            Self::Literal(literal) => literal.text.len(),
            Self::Masked(masked) => masked.chars.iter().map(|position| position.map_or(1, char::len_utf8)).sum(),
        }
    }

    /// Returns how many bytes the segment matches at the start of `text`.
    fn at_start(&self, text: &str) -> Option<usize> {
        match self {
            Self::Literal(literal) => text.starts_with(literal.text.as_str()).then_some(literal.text.len()),
            Self::Masked(masked) => taken(masked.chars.iter(), text.chars()),
        }
    }

    /// Returns how many bytes the segment matches at the end of `text`.
    fn at_end(&self, text: &str) -> Option<usize> {
        match self {
            Self::Literal(literal) => text.ends_with(literal.text.as_str()).then_some(literal.text.len()),
            Self::Masked(masked) => taken(masked.chars.iter().rev(), text.chars().rev()),
        }
    }

    /// Returns the byte offset at which the first match ends.
    fn find_end(&self, text: &str) -> Option<usize> {
        match self {
            Self::Literal(literal) => literal.finder.find(text.as_bytes()).map(|at| at + literal.text.len()),
            Self::Masked(masked) => masked.find_end(text),
        }
    }
}

fn taken<'a>(pattern: impl Iterator<Item = &'a Option<char>>, mut text: impl Iterator<Item = char>) -> Option<usize> {
    let mut length = 0;
    for position in pattern {
        let found = text.next()?;
        if position.is_some_and(|wanted| wanted != found) {
            return None;
        }
        length += found.len_utf8();
    }
    Some(length)
}

/// A segment with `?`. It is searched with the shift-and automaton: one bit for each position. Each
/// character of the text shifts all bits.
#[derive(Clone, Debug)]
struct Masked {
    /// `None` stands for a `?`.
    chars: Vec<Option<char>>,
    /// Positions that any character matches, 64 in a word.
    anything: Vec<u64>,
    /// For each character of the segment, in order: the words with positions that it matches, and
    /// those positions. Empty words are left out, so that the memory is proportional to the length
    /// of the segment.
    fitting: Vec<(char, Vec<(usize, u64)>)>,
}

impl Masked {
    fn new(chars: Vec<Option<char>>) -> Self {
        let mut anything = vec![0; chars.len().div_ceil(64)];
        for (at, _) in chars.iter().enumerate().filter(|(_, position)| position.is_none()) {
            anything[at / 64] |= 1 << (at % 64);
        }
        let mut wanted: Vec<(char, usize)> =
            chars.iter().enumerate().filter_map(|(at, position)| position.map(|c| (c, at))).collect();
        wanted.sort_unstable();
        let mut fitting: Vec<(char, Vec<(usize, u64)>)> = Vec::new();
        for (c, at) in wanted {
            match fitting.last_mut() {
                Some((last, words)) if *last == c => match words.last_mut() {
                    Some((word, mask)) if *word == at / 64 => *mask |= 1 << (at % 64),
                    _ => words.push((at / 64, 1 << (at % 64))),
                },
                _ => fitting.push((c, vec![(at / 64, 1 << (at % 64))])),
            }
        }
        Self { chars, anything, fitting }
    }

    fn find_end(&self, text: &str) -> Option<usize> {
        let last = self.chars.len().checked_sub(1)?;
        let mut state = vec![0_u64; self.anything.len()];
        for (at, c) in text.char_indices() {
            let found = self.fitting.binary_search_by_key(&c, |(wanted, _)| *wanted);
            let mut own = found.map_or([].as_slice(), |found| &self.fitting[found].1).iter().peekable();
            let mut carry = 1;
            for (number, (word, anything)) in state.iter_mut().zip(&self.anything).enumerate() {
                let mask = anything | own.next_if(|(of, _)| *of == number).map_or(0, |(_, mask)| *mask);
                let shifted = (*word << 1) | carry;
                carry = *word >> 63;
                *word = shifted & mask;
            }
            if state[last / 64] >> (last % 64) & 1 == 1 {
                return Some(at + c.len_utf8());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        WildCard::new(pattern, |literal, out| out.push_str(literal)).matches(text)
    }

    /// Implements the definition literally.
    fn slowly(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|at| slowly(rest, &text[at..])),
            Some(('?', rest)) => !text.is_empty() && slowly(rest, &text[1..]),
            Some((c, rest)) => text.first() == Some(c) && slowly(rest, &text[1..]),
        }
    }

    #[test]
    fn star_is_any_text_and_question_mark_one_character() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("**", "x"),
            ("a*", "a"),
            ("*a", "ba"),
            ("a*a", "aa"),
            ("*a*", "bab"),
            ("?", "山"),
            ("a?c", "abc"),
            ("*?c*", "xxbcx"),
            ("??", "é山"),
            ("a*b?d*", "axxbbcdyy"),
            ("*?", "x"),
            ("?*?", "ab"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("", "a"), ("a", "ab"), ("a*a", "a"), ("?", ""), ("?", "ab"), ("*a", "ab"), ("a*b*c", "acb"), ("?*?", "a")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn nothing_else_is_special() {
        assert!(matches("50%_[a]\\*", "50%_[a]\\x"));
        assert!(!matches("50%*", "50x"));
        assert!(!matches("P_*", "PX1"));
        assert!(!matches("[ab]*", "a"));
    }

    #[test]
    fn a_segment_may_be_longer_than_a_machine_word() {
        let pattern = format!("*{}?{}*", "ab".repeat(60), "c".repeat(70));
        let text = format!("{}x{}tail", "ab".repeat(61), "c".repeat(70));
        assert!(matches(&pattern, &text));
        assert!(!matches(&pattern, &text.replace('x', "")));
    }

    #[test]
    fn many_stars_take_no_time() {
        // With backtracking this would take longer than the age of the universe.
        let pattern = format!("{}b", "*a".repeat(2_000));
        assert!(!matches(&pattern, &"a".repeat(10_000)));
        assert!(matches(&"*a?".repeat(2_000), &"a".repeat(10_000)));
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab山*?]{0,8}", text in "[ab山]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), slowly(&chars(&pattern), &chars(&text)));
        }
    }
}
