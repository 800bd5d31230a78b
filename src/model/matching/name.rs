//! Matching of person names: by component group, in normal form (PS3.4 C.2.2.2.1, C.2.2.2.4; PS3.5 6.2.1).

use std::cell::RefCell;

use super::by_character::CharacterPattern;
use super::wild_card::{Run, WildCard};
use crate::model::matching::narrowing::is_all_stars;
use crate::model::matching::{NameMatching, NamePart, Narrowing};
use crate::model::person_name::{self, COMPONENTS, StoredCharacter, words};
use crate::model::sound::Sound;

/// A condition on a person name.
#[derive(Clone, Debug)]
pub(super) enum NameCondition {
    /// A key without `=`: any component group will do.
    AnyGroup(GroupCondition),
    /// A key with `=`: each group has its own condition; `None` is universal.
    EachGroup([Option<GroupCondition>; 3]),
    /// Fuzzy semantic matching: each word is found in some word of the name, in any order and component.
    Words {
        words: Vec<FuzzyWord>,
        /// What the key means without fuzzy matching, if it has wild cards: they keep their meaning.
        pattern: Option<Box<NameCondition>>,
    },
}

/// A word of a key in fuzzy semantic matching.
#[derive(Clone, Debug)]
pub(super) enum FuzzyWord {
    /// Begins a word of the name, or sounds like one. Of a short word the sound does not count.
    Plain { text: String, sound: Option<Sound> },
    /// Has wild cards, and fits a word of the name.
    Pattern(WildCard),
}

/// A condition on one component group.
#[derive(Clone, Debug)]
pub(super) enum GroupCondition {
    /// The group itself, and unless `exactly`, any with further components: `SMITH` is also `SMITH^JOHN`.
    Value { normal: String, exactly: bool },
    /// A pattern, compared with the group in normal form.
    Pattern(Box<GroupPattern>),
}

/// A pattern for one component group.
#[derive(Clone, Debug)]
pub(super) struct GroupPattern {
    pattern: WildCard,
    /// The same for groups that fold unevenly, where there is a `?`.
    by_character: Option<CharacterPattern>,
    /// How many `^` it has outside wild cards: a group with fewer components is filled up with empty ones.
    delimiters: usize,
}

impl NameCondition {
    /// `None` for a key that every name fulfils.
    pub(super) fn new(key: &str, matching: NameMatching) -> Option<Self> {
        let key = key.trim_end_matches([' ', '^', '=', '\0']);
        if matching == NameMatching::Fuzzy {
            let groups = person_name::normal_groups(key);
            let words: Vec<FuzzyWord> =
                groups.iter().flat_map(|group| words(group)).filter_map(FuzzyWord::new).collect();
            let exact = Self::new(key, NameMatching::LeadingComponents);
            // A key without words, such as a hyphen, has nothing to be fuzzy about.
            if words.is_empty() {
                return exact;
            }
            let pattern = exact.filter(Self::has_wild_card).map(Box::new);
            return Some(Self::Words { words, pattern });
        }
        if key.contains('=') {
            let groups = person_name::groups(key).map(|group| GroupCondition::new(group, matching));
            groups.iter().any(Option::is_some).then_some(Self::EachGroup(groups))
        } else {
            GroupCondition::new(key, matching).map(Self::AnyGroup)
        }
    }

    pub(super) fn has_wild_card(&self) -> bool {
        let is_pattern = |group: &GroupCondition| matches!(group, GroupCondition::Pattern(_));
        match self {
            Self::AnyGroup(group) => is_pattern(group),
            Self::EachGroup(groups) => groups.iter().flatten().any(is_pattern),
            Self::Words { .. } => true,
        }
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let groups = person_name::groups(name);
        match self {
            Self::AnyGroup(condition) => {
                let mut present = groups.into_iter().filter(|group| !group.is_empty()).peekable();
                match present.peek() {
                    Some(_) => present.any(|group| condition.matches(group)),
                    None => condition.matches(""),
                }
            }
            Self::EachGroup(conditions) => conditions
                .iter()
                .zip(groups)
                .all(|(condition, group)| condition.as_ref().is_none_or(|condition| condition.matches(group))),
            Self::Words { words, pattern } => {
                words.iter().all(|wanted| groups.iter().any(|group| wanted.is_in(group)))
                    || pattern.as_ref().is_some_and(|pattern| pattern.matches(name))
            }
        }
    }

    /// What an index of names, or of the words of names, can use.
    pub(super) fn narrowing(&self) -> Narrowing {
        let groups: Vec<&GroupCondition> = match self {
            Self::AnyGroup(group) => vec![group],
            Self::EachGroup(groups) => groups.iter().flatten().collect(),
            Self::Words { words, .. } => {
                // Each word has to be found; the longest is likely to be the rarest. It also stands in each name that the
                // pattern matches: the key has it between delimiters, spaces and wild cards, as the name does.
                let narrowings = words.iter().filter_map(FuzzyWord::narrowing);
                let longest = narrowings.max_by_key(|(length, _)| *length);
                return longest.map_or(Narrowing::None, |(_, narrowing)| narrowing);
            }
        };
        let prefix = groups.iter().find_map(|group| group.prefix());
        let part = || groups.iter().filter_map(|group| group.part()).max_by_key(NamePart::promise);
        prefix.map(Narrowing::NamePrefix).or_else(|| part().map(Narrowing::NamePart)).unwrap_or(Narrowing::None)
    }

    /// Whether a name may match of which one component group has this normal form, the one by which it was found. A name
    /// that matches has such a group.
    pub(super) fn may_match_group(&self, normal: &str) -> bool {
        match self {
            Self::AnyGroup(group) => group.may_match_normal(normal),
            // Other groups have their say.
            Self::EachGroup(_) | Self::Words { .. } => true,
        }
    }
}

impl FuzzyWord {
    /// `None` for a word of stars.
    fn new(word: &str) -> Option<Self> {
        if is_all_stars(word) {
            return None;
        }
        Some(if word.contains(['*', '?']) {
            Self::Pattern(WildCard::new(word, |literal, out| out.push_str(literal)))
        } else {
            Self::Plain { text: word.to_owned(), sound: Sound::of_word(word) }
        })
    }

    /// Whether a component group has such a word.
    fn is_in(&self, group: &str) -> bool {
        with_normal_form(group, |normal| {
            words(normal).any(|word| match self {
                Self::Plain { text, sound } => {
                    word.starts_with(text.as_str())
                        || sound.as_ref().is_some_and(|sound| Sound::of_word(word).is_some_and(|of| sound.is_like(&of)))
                }
                Self::Pattern(pattern) => pattern.matches(word),
            })
        })
    }

    /// What an index can use, and how many bytes of text it has.
    fn narrowing(&self) -> Option<(usize, Narrowing)> {
        match self {
            Self::Plain { text, sound } => {
                let sounds = sound.iter().flat_map(Sound::codes).map(str::to_owned).collect();
                Some((text.len(), Narrowing::NameWord { prefix: text.clone(), sounds }))
            }
            Self::Pattern(pattern) => {
                let parts = pattern.literals().into_iter();
                let parts = parts.map(|run| NamePart { text: run.text, starts: run.starts, ends: run.ends });
                parts.max_by_key(NamePart::promise).map(|part| (part.text.len(), Narrowing::NamePart(part)))
            }
        }
    }
}

impl GroupCondition {
    fn new(key: &str, matching: NameMatching) -> Option<Self> {
        if is_all_stars(key) {
            return None;
        }
        if !key.contains(['*', '?']) {
            let normal = person_name::normal_form(key);
            return (!normal.is_empty()).then_some(Self::Value { normal, exactly: matching == NameMatching::Exact });
        }
        // The delimiters outside wild cards are those written: folding makes none.
        let components: Vec<&str> = key.split('^').map(str::trim).collect();
        let written = components.join("^");
        let written = written.trim_end_matches('^');
        Some(Self::Pattern(Box::new(GroupPattern {
            pattern: WildCard::new(written, person_name::push_folded),
            by_character: written.contains('?').then(|| CharacterPattern::new(written, person_name::push_folded)),
            delimiters: written.matches('^').count(),
        })))
    }

    fn matches(&self, group: &str) -> bool {
        match self {
            Self::Value { normal, exactly } => with_normal_form(group, |group| {
                group
                    .strip_prefix(normal.as_str())
                    .is_some_and(|rest| rest.is_empty() || !exactly && rest.starts_with('^'))
            }),
            Self::Pattern(pattern) => pattern.matches(group),
        }
    }

    fn prefix(&self) -> Option<String> {
        let mut prefix = match self {
            Self::Value { normal, .. } => normal.clone(),
            Self::Pattern(pattern) => pattern.pattern.prefix(),
        };
        prefix.truncate(prefix.trim_end_matches(['^', ' ']).len());
        (!prefix.is_empty()).then_some(prefix)
    }

    /// Whether a group may match that has this normal form.
    fn may_match_normal(&self, normal: &str) -> bool {
        match self {
            Self::Value { .. } => self.matches(normal),
            // A `?` may stand for a character that the normal form has made two or none.
            Self::Pattern(pattern) => pattern.by_character.is_some() || pattern.matches(normal),
        }
    }

    /// The piece of text that some word of each matching group contains, of several the one that likely leads to least.
    fn part(&self) -> Option<NamePart> {
        match self {
            // Further components begin after a delimiter.
            Self::Value { normal, .. } => best_part(&Run { text: normal.clone(), starts: true, ends: true }),
            // Of what the pattern has between wild cards, a word of the group contains each piece up to the end of a word.
            Self::Pattern(pattern) => {
                pattern.pattern.literals().iter().filter_map(best_part).max_by_key(NamePart::promise)
            }
        }
    }
}

/// What a run of characters says of the words of a group that contains it: between two characters that belong to no word
/// stands a whole one, and only at the ends of the run a word may go on.
fn best_part(run: &Run) -> Option<NamePart> {
    let begin = run.text.as_ptr() as usize;
    let part = |word: &str| {
        let from = word.as_ptr() as usize - begin;
        NamePart {
            text: word.to_owned(),
            starts: run.starts || from > 0,
            ends: run.ends || from + word.len() < run.text.len(),
        }
    };
    words(&run.text).map(part).max_by_key(NamePart::promise)
}

impl GroupPattern {
    fn matches(&self, group: &str) -> bool {
        match &self.by_character {
            Some(pattern) if person_name::folds_unevenly(group) => {
                pattern.matches(|each| for_each_character_filled_up(group, self.delimiters, each))
            }
            Some(_) | None => with_normal_form(group, |normal| {
                fill_up(normal, self.delimiters);
                self.pattern.matches(normal)
            }),
        }
    }
}

/// As [`person_name::for_each_character_of_group`], with what [`fill_up`] adds.
fn for_each_character_filled_up(group: &str, delimiters: usize, each: &mut dyn FnMut(StoredCharacter<'_>)) {
    let mut found = 0;
    person_name::for_each_character_of_group(group, |character| {
        found += usize::from(character.folded == "^");
        each(character);
    });
    if delimiters < COMPONENTS {
        for _ in found..delimiters {
            each(StoredCharacter { folded: "^", is_divisible: true });
        }
    }
}

/// Fills a group up to so many delimiters with the empty components that PS3.5 6.2.1.1 lets a writer leave out, within the
/// five that a name has: `SMITH^*` is also `SMITH`.
fn fill_up(group: &mut String, delimiters: usize) {
    if delimiters >= COMPONENTS {
        return;
    }
    for _ in group.matches('^').count()..delimiters {
        group.push('^');
    }
}

/// The normal form of a group in a buffer that is kept from call to call: this runs once for each row looked at.
fn with_normal_form<T>(group: &str, look: impl FnOnce(&mut String) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        person_name::push_normal_form(group, buffer);
        look(buffer)
    })
}
