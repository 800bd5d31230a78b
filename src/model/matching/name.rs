//! Matching of person names: by component group, in normal form (PS3.4 C.2.2.2.1, C.2.2.2.4; PS3.5 6.2.1).

use std::cell::RefCell;

use super::wild_card::WildCard;
use super::{NameMatching, is_all_stars};
use crate::model::person_name::{self, COMPONENTS, Ligatures};

/// A condition on a person name.
#[derive(Clone, Debug)]
pub(super) enum NameCondition {
    /// A key without `=`: any component group will do.
    AnyGroup(GroupCondition),
    /// A key with `=`: each group has its own condition; `None` is universal.
    EachGroup([Option<GroupCondition>; 3]),
    /// Fuzzy semantic matching: each word begins some word of the name, in any order and component.
    Words(Vec<String>),
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
    /// The same with `ß` and its like left one character, where there is a `?` that might stand for one.
    ligatures_kept: Option<WildCard>,
    /// How many `^` it has outside wild cards: a group with fewer components is filled up with empty ones.
    delimiters: usize,
}

impl NameCondition {
    /// `None` for a key that every name fulfils.
    pub(super) fn new(key: &str, matching: NameMatching) -> Option<Self> {
        let key = key.trim_end_matches([' ', '^', '=', '\0']);
        if matching == NameMatching::Fuzzy && !key.contains('?') {
            let words: Vec<String> = words(key).map(|word| word.replace('*', "")).filter(|w| !w.is_empty()).collect();
            return (!words.is_empty()).then_some(Self::Words(words));
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
            Self::Words(_) => true,
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
            Self::Words(wanted) => {
                let normal: Vec<String> = words(name).collect();
                wanted.iter().all(|wanted| normal.iter().any(|word| word.starts_with(wanted.as_str())))
            }
        }
    }

    /// What some component group of each matching name begins with, in normal form.
    pub(super) fn prefix(&self) -> Option<String> {
        match self {
            Self::AnyGroup(group) => group.prefix(),
            Self::EachGroup(groups) => groups.iter().flatten().find_map(GroupCondition::prefix),
            Self::Words(_) => None,
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
        let pattern =
            |ligatures| WildCard::new(written, |literal, out| person_name::push_folded(literal, ligatures, out));
        Some(Self::Pattern(Box::new(GroupPattern {
            pattern: pattern(Ligatures::Expanded),
            ligatures_kept: written.contains('?').then(|| pattern(Ligatures::Kept)),
            delimiters: written.matches('^').count(),
        })))
    }

    fn matches(&self, group: &str) -> bool {
        match self {
            Self::Value { normal, exactly } => with_normal_form(group, Ligatures::Expanded, |group| {
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
}

impl GroupPattern {
    fn matches(&self, group: &str) -> bool {
        let fits = |pattern: &WildCard, ligatures| {
            with_normal_form(group, ligatures, |normal| {
                fill_up(normal, self.delimiters);
                pattern.matches(normal)
            })
        };
        fits(&self.pattern, Ligatures::Expanded)
            || (!group.is_ascii() && self.ligatures_kept.as_ref().is_some_and(|pattern| fits(pattern, Ligatures::Kept)))
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

/// The words of a name, folded: what stands between spaces, delimiters, commas, full stops and hyphens.
fn words(name: &str) -> impl Iterator<Item = String> {
    name.split([' ', '\u{3000}', '^', '=', ',', '.', '-', '\0'])
        .filter(|word| !word.is_empty())
        .map(person_name::fold)
        .filter(|word| !word.is_empty())
}

/// The normal form of a group in a buffer that is kept from call to call: this runs once for each row looked at.
fn with_normal_form<T>(group: &str, ligatures: Ligatures, look: impl FnOnce(&mut String) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        person_name::push_normal_form(group, ligatures, buffer);
        look(buffer)
    })
}
