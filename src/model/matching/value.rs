//! Stored values, and how a prepared value of a key is compared with one.

use std::cell::RefCell;

use dicom_core::VR;

use super::by_character::CharacterPattern;
use super::decimal::Decimal;
use super::key::{separates_values, trim};
use super::name::NameCondition;
use super::narrowing::Narrowing;
use super::span::Span;
use super::wild_card::WildCard;
use crate::model::attribute::Multiplicity;
use crate::model::person_name;

/// Rules to split a stored text into the values that are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct SplitRules {
    pub(super) vr: VR,
    pub(super) reading: BackslashMeaning,
}

/// Meaning of a backslash in a stored text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackslashMeaning {
    /// It is an ordinary character.
    Whole,
    /// It separates values.
    Separated,
    /// It may be either. The attribute should have one value, but some objects break this rule.
    WholeOrSeparated,
}

/// The value of a key, prepared for comparison with many stored values.
#[derive(Clone)]
pub(super) enum PreparedValue {
    /// The text must be equal.
    Text(String),
    /// The text must be equal after [`person_name::fold`].
    Folded(String),
    Number(Decimal),
    /// A date, time or moment. `span` is the span that the key names. `text` is the key itself, for
    /// comparison with stored text that is not a date.
    Moment {
        span: Span,
        text: String,
    },
    Name(Box<NameCondition>),
}

/// A pattern with wild cards.
#[derive(Clone)]
pub(super) enum PatternKind {
    Text(WildCard),
    Folded(Box<FoldedPattern>),
    Name(Box<NameCondition>),
}

/// A pattern that is compared with folded text.
#[derive(Clone)]
pub(super) struct FoldedPattern {
    pub(super) folded: WildCard,
    /// The same pattern for texts that fold unevenly. Only a pattern with `?` needs it.
    pub(super) by_character: Option<CharacterPattern>,
}

impl SplitRules {
    pub(super) fn new(vr: VR, multiplicity: Multiplicity) -> Self {
        let reading = match multiplicity {
            _ if !separates_values(vr) => BackslashMeaning::Whole,
            Multiplicity::Many => BackslashMeaning::Separated,
            // The whole text is one UID, even if it is malformed.
            Multiplicity::One if vr == VR::UI => BackslashMeaning::Whole,
            Multiplicity::One => BackslashMeaning::WholeOrSeparated,
        };
        Self { vr, reading }
    }

    /// Whether the test holds for any value of a stored text (PS3.4 C.2.2.3).
    pub(super) fn any(self, text: &str, mut test: impl FnMut(&str) -> bool) -> bool {
        let separated = |test: &mut dyn FnMut(&str) -> bool| text.split('\\').any(|value| test(trim(self.vr, value)));
        match self.reading {
            BackslashMeaning::Whole => test(trim(self.vr, text)),
            BackslashMeaning::Separated => separated(&mut test),
            BackslashMeaning::WholeOrSeparated => {
                test(trim(self.vr, text)) || (text.contains('\\') && separated(&mut test))
            }
        }
    }

    pub(super) fn is_one(self) -> bool {
        self.reading != BackslashMeaning::Separated
    }
}

impl PreparedValue {
    pub(super) fn matches(&self, stored: &str) -> bool {
        match self {
            Self::Text(text) => text == stored,
            Self::Folded(folded) => with_folded(stored, |stored| folded == stored),
            Self::Number(number) => Decimal::parse(stored).is_some_and(|stored| *number == stored),
            Self::Moment { span, text } => span.contains(stored) || text == stored,
            Self::Name(name) => name.matches(stored),
        }
    }

    pub(super) fn narrowing(&self) -> Narrowing {
        match self {
            Self::Text(text) => Narrowing::Equals(vec![text.clone()]),
            Self::Folded(_) | Self::Number(_) => Narrowing::None,
            Self::Moment { span, text } => match span.narrowing() {
                Narrowing::Between(first, last) if first == last && first == *text => Narrowing::Equals(vec![first]),
                Narrowing::Between(first, last) if first == last => Narrowing::Equals(vec![first, text.clone()]),
                Narrowing::Between(first, last) => Narrowing::Between(first.min(text.clone()), last.max(text.clone())),
                other => other,
            },
            Self::Name(name) => name.narrowing(),
        }
    }
}

impl PatternKind {
    pub(super) fn matches(&self, stored: &str) -> bool {
        match self {
            Self::Text(pattern) => pattern.matches(stored),
            Self::Folded(pattern) => pattern.matches(stored),
            Self::Name(name) => name.matches(stored),
        }
    }

    pub(super) fn narrowing(&self) -> Narrowing {
        match self {
            Self::Text(pattern) => match pattern.prefix() {
                prefix if prefix.is_empty() => Narrowing::None,
                prefix => Narrowing::Prefix(prefix),
            },
            Self::Folded(_) => Narrowing::None,
            Self::Name(name) => name.narrowing(),
        }
    }
}

impl FoldedPattern {
    pub(super) fn matches(&self, stored: &str) -> bool {
        match &self.by_character {
            Some(pattern) if person_name::folds_unevenly(stored) => {
                pattern.matches(|each| person_name::for_each_character(stored, each))
            }
            Some(_) | None => with_folded(stored, |stored| self.folded.matches(stored)),
        }
    }
}

/// Calls `look` with the folded form of a text. The buffer is reused, because this runs once for
/// each row that a search examines.
fn with_folded<T>(text: &str, look: impl FnOnce(&str) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        person_name::push_folded(text, buffer);
        look(buffer)
    })
}
