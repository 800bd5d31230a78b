//! Matching of person names, by component group and in normal form (PS3.4 C.2.2.2.1, C.2.2.2.4;
//! PS3.5 6.2.1).

use std::cell::RefCell;

use super::by_character::CharacterPattern;
use super::narrowing::{NameMatching, NamePart, Narrowing, is_all_stars};
use super::wild_card::{CharacterRun, WildCard};
use crate::model::metaphone::Sound;
use crate::model::person_name::{self, COMPONENTS, StoredCharacter, words};

/// A condition on a person name.
#[derive(Clone, Debug)]
pub(super) enum NameCondition {
    /// A key without `=`. Any component group may match.
    AnyGroup(GroupCondition),
    /// A key with `=`. Each group has its own condition, and `None` is universal.
    EachGroup([Option<GroupCondition>; 3]),
    /// Fuzzy semantic matching. Each word of the key must match some word of the name, in any order
    /// and component.
    Words {
        words: Vec<FuzzyWord>,
        /// The condition of the key without fuzzy matching, if it has wild cards. Wild cards keep
        /// their meaning.
        pattern: Option<Box<NameCondition>>,
    },
}

/// A word of a key in fuzzy semantic matching.
#[derive(Clone, Debug)]
pub(super) enum FuzzyWord {
    /// Matches a word of the name that begins with `text` or has the same sound. Short words have
    /// no sound.
    Plain { text: String, sound: Option<Sound> },
    /// Matches a word of the name that fits the wild cards.
    Pattern(WildCard),
}

/// A condition on one component group.
#[derive(Clone, Debug)]
pub(super) enum GroupCondition {
    /// Matches the same group. Unless `exactly` is true, it also matches a group with more
    /// components: `SMITH` finds `SMITH^JOHN`.
    Value { normal: String, exactly: bool },
    /// Matches a group whose normal form fits the pattern.
    Pattern(Box<GroupPattern>),
}

/// A pattern for one component group.
#[derive(Clone, Debug)]
pub(super) struct GroupPattern {
    pattern: WildCard,
    /// The same pattern for groups that fold unevenly. Only a pattern with `?` needs it.
    by_character: Option<CharacterPattern>,
    /// Number of `^` in the pattern. A group with fewer components is extended with empty ones.
    delimiters: usize,
}

impl NameCondition {
    /// Compiles a key. Returns `None` if every name matches it.
    pub(super) fn new(key: &str, matching: NameMatching) -> Option<Self> {
        let key = key.trim_end_matches([' ', '^', '=', '\0']);
        if matching == NameMatching::Fuzzy {
            let groups = person_name::normal_groups(key);
            let words: Vec<FuzzyWord> =
                groups.iter().flat_map(|group| words(group)).filter_map(FuzzyWord::new).collect();
            let exact = Self::new(key, NameMatching::LeadingComponents);
            // A key without words, such as a hyphen, cannot be matched fuzzily.
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

    /// Returns the condition for an index of names or of words of names.
    pub(super) fn narrowing(&self) -> Narrowing {
        let groups: Vec<&GroupCondition> = match self {
            Self::AnyGroup(group) => vec![group],
            Self::EachGroup(groups) => groups.iter().flatten().collect(),
            Self::Words { words, .. } => {
                // Each word must be found, and the longest is likely to be the rarest. Every name
                // that the pattern matches contains it too. The key has the word between
                // delimiters, spaces and wild cards, and so does the name.
                let narrowings = words.iter().filter_map(FuzzyWord::narrowing);
                let longest = narrowings.max_by_key(|(length, _)| *length);
                return longest.map_or(Narrowing::None, |(_, narrowing)| narrowing);
            }
        };
        let prefix = groups.iter().find_map(|group| group.prefix());
        let part = || groups.iter().filter_map(|group| group.part()).max_by_key(NamePart::selectivity);
        prefix.map(Narrowing::NamePrefix).or_else(|| part().map(Narrowing::NamePart)).unwrap_or(Narrowing::None)
    }

    /// Whether a name may match if one of its component groups has this normal form. A matching
    /// name has such a group.
    pub(super) fn may_match_group(&self, normal: &str) -> bool {
        match self {
            Self::AnyGroup(group) => group.may_match_normal(normal),
            // The other groups must be tested too.
            Self::EachGroup(_) | Self::Words { .. } => true,
        }
    }
}

impl FuzzyWord {
    /// Compiles a word. Returns `None` if it consists of stars.
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

    /// Whether a component group contains a word that matches.
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

    /// Returns the condition for an index, and the length of its text in bytes.
    fn narrowing(&self) -> Option<(usize, Narrowing)> {
        match self {
            Self::Plain { text, sound } => {
                let sounds = sound.iter().flat_map(Sound::codes).map(str::to_owned).collect();
                Some((text.len(), Narrowing::NameWord { prefix: text.clone(), sounds }))
            }
            Self::Pattern(pattern) => {
                let parts = pattern.literals().into_iter();
                let parts = parts.map(|run| NamePart { text: run.text, starts: run.starts, ends: run.ends });
                parts.max_by_key(NamePart::selectivity).map(|part| (part.text.len(), Narrowing::NamePart(part)))
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
        // Folding makes no delimiters, so only those of the key count.
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

    /// Whether a group with this normal form may match.
    fn may_match_normal(&self, normal: &str) -> bool {
        match self {
            Self::Value { .. } => self.matches(normal),
            // A `?` may match a character that became two or none in the normal form.
            Self::Pattern(pattern) => pattern.by_character.is_some() || pattern.matches(normal),
        }
    }

    /// Returns a part of a word that every matching group contains. If there are several, it is the
    /// most selective one.
    fn part(&self) -> Option<NamePart> {
        match self {
            // Further components begin after a delimiter, so the word ends there.
            Self::Value { normal, .. } => best_part(&CharacterRun { text: normal.clone(), starts: true, ends: true }),
            // Every matching group contains each run between wild cards. So some word contains each
            // part of a run, up to the end of a word.
            Self::Pattern(pattern) => {
                pattern.pattern.literals().iter().filter_map(best_part).max_by_key(NamePart::selectivity)
            }
        }
    }
}

/// Returns the most selective part of a word in a run of characters.
///
/// Between two separators the word is complete. At the ends of the run, the word may continue.
fn best_part(run: &CharacterRun) -> Option<NamePart> {
    let begin = run.text.as_ptr() as usize;
    let part = |word: &str| {
        let from = word.as_ptr() as usize - begin;
        NamePart {
            text: word.to_owned(),
            starts: run.starts || from > 0,
            ends: run.ends || from + word.len() < run.text.len(),
        }
    };
    words(&run.text).map(part).max_by_key(NamePart::selectivity)
}

impl GroupPattern {
    /// Whether a group fits. Only a universal key matches a name that is missing (PS3.4 C.2.2.2.4).
    fn matches(&self, group: &str) -> bool {
        match &self.by_character {
            Some(pattern) if person_name::folds_unevenly(group) => {
                with_normal_form(group, |normal| !normal.is_empty())
                    && pattern.matches(|each| for_each_character_filled_up(group, self.delimiters, each))
            }
            Some(_) | None => with_normal_form(group, |normal| {
                let is_there = !normal.is_empty();
                fill_up(normal, self.delimiters);
                is_there && self.pattern.matches(normal)
            }),
        }
    }
}

/// Works like [`person_name::for_each_character_of_group`], and adds what [`fill_up`] adds.
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

/// Adds empty components until the group has `delimiters` delimiters. A name has at most five
/// components.
///
/// PS3.5 6.2.1.1 lets a writer omit empty components, so `SMITH^*` also finds `SMITH`.
fn fill_up(group: &mut String, delimiters: usize) {
    if delimiters >= COMPONENTS {
        return;
    }
    for _ in group.matches('^').count()..delimiters {
        group.push('^');
    }
}

/// Calls `look` with the normal form of a group. The buffer is reused, because this runs once for
/// each row that a search examines.
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
