//! Meaning of the keys of a command line. A key that the index cannot answer is an error that names
//! the way out, because all rows or none would mislead.

use std::path::Path;

use anyhow::bail;
use dicom_core::VR;
use dicom_dictionary_std::tags;

use super::columns::{Column, ColumnSource, OwnColumn};
use super::lists::{self, KeyList};
use super::{arrival, hints};
use crate::db::{can_answer, can_answer_declared};
use crate::export::table::snake_case;
use crate::model::attribute::{Attribute, AttributeId, LetterCase};
use crate::model::calendar::DAY_MS;
use crate::model::declared::{Declared, DeclaredColumn, DeclaredSet, SelectorStep, canonical_tag};
use crate::model::find::ArrivalKeys;
use crate::model::level::QueryRetrieveLevel;
use crate::model::matching::separates_values;
use crate::model::written_time;
use crate::qr;

/// The keys of a command line, checked.
pub(in crate::cli) struct FindKeys {
    /// The keys for the query, with dates in the form of the Standard.
    pub(in crate::cli) keys: Vec<String>,
    /// The columns to show, in order and each once.
    pub(in crate::cli) shown: Vec<AskedColumn>,
    /// Conditions on arrival.
    pub(in crate::cli) arrival: ArrivalKeys,
    /// The keys with a value, for hints when nothing matches.
    pub(in crate::cli) matched: Vec<hints::MatchedKey>,
    /// Values that came from files.
    pub(in crate::cli) lists: Vec<KeyList>,
}

/// A column that was asked for.
#[derive(Clone)]
pub(in crate::cli) struct AskedColumn {
    name: String,
    meaning: KeyMeaning,
    yields: bool,
}

/// Meaning of the name of a key.
#[derive(Clone)]
enum KeyMeaning {
    /// An attribute of the table. The path leads into the items of a sequence.
    Attribute(&'static Attribute, Vec<dicom_core::Tag>, VR),
    Declared(Box<Declared>),
    Own(OwnColumn),
}

/// Facts that are known before the keys are read.
pub(in crate::cli) struct KeyReader<'a> {
    pub(in crate::cli) level: QueryRetrieveLevel,
    pub(in crate::cli) declared: &'a DeclaredSet,
    pub(in crate::cli) now_ms: i64,
}

impl KeyReader<'_> {
    /// Reads the keys.
    ///
    /// # Errors
    /// If the index cannot answer one of them.
    pub(in crate::cli) fn keys(&self, keys: &[String]) -> anyhow::Result<FindKeys> {
        let (arrival, rest) = arrival::take(keys, self.now_ms)?;
        let mut asked =
            FindKeys { keys: Vec::new(), shown: Vec::new(), arrival, matched: Vec::new(), lists: Vec::new() };
        for key in rest {
            self.add(&mut asked, key)?;
        }
        Ok(asked)
    }

    /// Reads the name of a column.
    ///
    /// # Errors
    /// If the answers cannot have it.
    pub(in crate::cli) fn column(&self, name: &str) -> anyhow::Result<AskedColumn> {
        let meaning = self.meaning(name)?;
        self.check_shown(name, &meaning)?;
        Ok(AskedColumn { name: display_name(name, &meaning), meaning, yields: false })
    }

    fn add(&self, asked: &mut FindKeys, key: &str) -> anyhow::Result<()> {
        let (name, value) = match key.split_once('=') {
            Some((name, value)) => (name.trim(), value),
            None => (key.trim(), ""),
        };
        if !key.contains('=') && looks_like_an_index(key) {
            bail!("`{key}` is no key; is this the index? hint: --index {key}");
        }
        if let Some(at) = name.find(['<', '>']) {
            let name = &name[..at];
            let has_ranges = matches!(qr::keys::tag(name).map(qr::keys::vr), Ok(VR::DA | VR::TM | VR::DT));
            if has_ranges {
                bail!("`{name}` cannot be compared so; write a range: {name}=2004-, {name}=-2004 or {name}=2004-2005");
            }
            bail!(
                "`{name}` cannot be compared so, only with one value; hint: --sort {name}:desc has the largest first"
            );
        }
        let meaning = self.meaning(name)?;
        let has_value = !value.is_empty();
        if has_value {
            check_matched(name, &meaning)?;
        }
        let is_shown = self.check_shown(name, &meaning);
        if !has_value {
            is_shown?;
            asked.show(AskedColumn { name: display_name(name, &meaning), meaning, yields: false });
            return Ok(());
        }
        let (vr, letter_case) = meaning.comparison();
        let in_dicom_form = |value: &str| match vr {
            VR::DA | VR::DT => written_time::in_dicom_form(vr, value, self.now_ms.div_euclid(DAY_MS)),
            VR::TM => value.replace("..", "-"),
            _ => value.to_owned(),
        };
        let value = match value.strip_prefix('@') {
            // Two signs stand for one that is part of the value.
            Some(rest) if rest.starts_with('@') => in_dicom_form(rest),
            Some(file) => {
                let shown = display_name(name, &meaning);
                if !separates_values(vr) {
                    bail!("{shown} cannot be matched with a list: a backslash is part of its values");
                }
                let values = lists::read(file, &[name, &shown, &snake_case(&shown)])?;
                let values: Vec<String> = values.iter().map(|value| in_dicom_form(value)).collect();
                let joined = values.join("\\");
                let path = lists::path_and_column(file).0.to_owned();
                asked.lists.push(KeyList { path, name: shown, vr, letter_case, values });
                joined
            }
            None => in_dicom_form(value),
        };
        asked.keys.push(format!("{name}={value}"));
        let name = display_name(name, &meaning);
        asked.matched.push(hints::MatchedKey { name: name.clone(), vr, letter_case, value });
        // A key of a lower level may narrow the answers and have no place in them.
        if is_shown.is_ok() {
            asked.show(AskedColumn { name, meaning, yields: false });
        }
        Ok(())
    }

    fn meaning(&self, name: &str) -> anyhow::Result<KeyMeaning> {
        if let Some(own) = OwnColumn::by_name(name) {
            return Ok(KeyMeaning::Own(own));
        }
        if let Some(attribute) = self.declared.by_name(name) {
            return Ok(KeyMeaning::Declared(Box::new(attribute.clone())));
        }
        if let Some(example) = arrival::example(name) {
            bail!("`{name}` needs a value, as in {example}");
        }
        let mut steps = name.split('.').map(str::trim);
        let tag = qr::keys::tag(steps.next().unwrap_or_default())?;
        let Some(attribute) = Attribute::by_tag(tag) else { bail!(self.not_kept(tag)) };
        if attribute.id == AttributeId::SpecificCharacterSet {
            bail!(
                "{} is no key, and all output is UTF-8; hint: the view `instances` of the index has it",
                attribute.keyword
            );
        }
        let mut path = Vec::new();
        let mut vr = attribute.vr;
        for step in steps {
            let tag = qr::keys::tag(step)?;
            if tag.group() % 2 == 1 {
                bail!("`{name}` is private: declare it ([[attribute]] in the settings file) and scan again");
            }
            path.push(tag);
            vr = qr::keys::vr(tag);
        }
        Ok(KeyMeaning::Attribute(attribute, path, vr))
    }

    /// The error for an element that is not in the table.
    fn not_kept(&self, tag: dicom_core::Tag) -> String {
        let keyword = qr::keys::keyword(tag);
        let below: Vec<&str> = self
            .declared
            .attributes()
            .iter()
            .filter(|attribute| attribute.path.first() == Some(&SelectorStep::Public(tag)))
            .map(|attribute| attribute.name.as_str())
            .collect();
        // TransferSyntaxUID stands in the File Meta Information, and the index keeps it for
        // answers.
        if tag == tags::TRANSFER_SYNTAX_UID {
            return "the index keeps it as AvailableTransferSyntaxUID; hint: --level IMAGE AvailableTransferSyntaxUID"
                .to_owned();
        }
        if !below.is_empty() {
            return format!("of {keyword} the index keeps only what is declared: {}", below.join(", "));
        }
        format!("the index does not keep {keyword}; declare it ([[attribute]] in the settings file) and scan again")
    }

    /// Whether the answers of this level can have a column with this meaning.
    fn check_shown(&self, name: &str, meaning: &KeyMeaning) -> anyhow::Result<()> {
        let (fits, level) = match meaning {
            KeyMeaning::Attribute(attribute, ..) => (can_answer(attribute, self.level), attribute.level),
            KeyMeaning::Declared(attribute) => match attribute.kept {
                DeclaredColumn::Unit(number) => {
                    let unit = self.declared.units().get(number);
                    (unit.is_some_and(|unit| can_answer_declared(unit, self.level)), attribute.level)
                }
                DeclaredColumn::InTable(id) => (can_answer(id.attribute(), self.level), attribute.level),
            },
            KeyMeaning::Own(_) => (self.level == QueryRetrieveLevel::Image, QueryRetrieveLevel::Image),
        };
        if !fits {
            let name = display_name(name, meaning);
            bail!("{name} belongs to {level}; hint: --level {level}");
        }
        Ok(())
    }
}

impl FindKeys {
    /// Adds a column after those that are shown.
    pub(in crate::cli) fn show(&mut self, wanted: AskedColumn) {
        if !self.shown.iter().any(|shown| shown.name == wanted.name) {
            self.shown.push(wanted);
        }
    }

    /// Shows nothing but what is asked for from now on.
    pub(in crate::cli) fn hide_all(&mut self) {
        self.shown.clear();
    }

    /// All keys for the query: those that narrow it, and those that are shown.
    pub(in crate::cli) fn query_keys<'a>(&'a self, more: &'a [AskedColumn]) -> Vec<&'a str> {
        let shown = self.shown.iter().chain(more).filter(|wanted| !wanted.is_own());
        self.keys.iter().map(String::as_str).chain(shown.map(|wanted| wanted.name.as_str())).collect()
    }

    /// Names of the declared attributes that are matched or shown.
    pub(in crate::cli) fn declared_names<'a>(
        &'a self,
        declared: &DeclaredSet,
        more: &'a [AskedColumn],
    ) -> Vec<&'a str> {
        let of_matched = self.matched.iter().map(|matched| matched.name.as_str());
        let of_shown = self.shown.iter().chain(more).map(|wanted| wanted.name.as_str());
        let mut names: Vec<&str> = of_matched.chain(of_shown).filter(|name| declared.by_name(name).is_some()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Numbers of the declared units that are matched or shown.
    pub(in crate::cli) fn declared_units(&self, declared: &DeclaredSet, more: &[AskedColumn]) -> Vec<usize> {
        let of_matched = self.matched.iter().filter_map(|matched| declared.by_name(&matched.name));
        let of_shown = self.shown.iter().chain(more).filter_map(|wanted| match &wanted.meaning {
            KeyMeaning::Declared(attribute) => Some(&**attribute),
            KeyMeaning::Attribute(..) | KeyMeaning::Own(_) => None,
        });
        let kept = of_matched.chain(of_shown).filter_map(|attribute| match attribute.kept {
            DeclaredColumn::Unit(number) => Some(number),
            DeclaredColumn::InTable(_) => None,
        });
        kept.collect()
    }
}

impl KeyMeaning {
    fn comparison(&self) -> (VR, LetterCase) {
        match self {
            Self::Attribute(attribute, path, _) if path.is_empty() => (attribute.vr, attribute.letter_case),
            Self::Attribute(_, _, vr) => (*vr, LetterCase::Sensitive),
            Self::Declared(attribute) => (attribute.vr, LetterCase::Sensitive),
            Self::Own(_) => (VR::UN, LetterCase::Sensitive),
        }
    }
}

/// The name of a column: the keyword, even if the key was a tag.
fn display_name(name: &str, meaning: &KeyMeaning) -> String {
    match meaning {
        KeyMeaning::Attribute(attribute, path, _) if path.is_empty() => attribute.keyword.to_owned(),
        KeyMeaning::Attribute(attribute, path, _) => {
            let inner: Vec<_> = path.iter().map(|tag| qr::keys::keyword(*tag)).collect();
            format!("{}.{}", attribute.keyword, inner.join("."))
        }
        KeyMeaning::Declared(attribute) => attribute.name.clone(),
        KeyMeaning::Own(_) => name.to_owned(),
    }
}

/// Refuses a value that would not narrow the answers.
fn check_matched(name: &str, meaning: &KeyMeaning) -> anyhow::Result<()> {
    match meaning {
        KeyMeaning::Own(_) => bail!("`{name}` is shown and cannot be matched; hint: write it without `=`"),
        KeyMeaning::Attribute(attribute, ..) if !qr::keys::narrows(attribute) => {
            bail!("{} cannot be matched: the index keeps no value of it", attribute.keyword)
        }
        KeyMeaning::Attribute(..) | KeyMeaning::Declared(_) => Ok(()),
    }
}

/// Whether a key is rather the name of a file that was meant as `--index`.
fn looks_like_an_index(key: &str) -> bool {
    let path = Path::new(key);
    path.extension().is_some_and(|extension| extension == "db") || (key.contains(['.', '/']) && path.is_file())
}

impl AskedColumn {
    /// The same column, which is left out where a table has no room for it.
    pub(in crate::cli) fn that_yields(self) -> Self {
        Self { yields: true, ..self }
    }

    pub(in crate::cli) fn is_own(&self) -> bool {
        matches!(self.meaning, KeyMeaning::Own(_))
    }

    /// Finds the column in the answers to a query.
    pub(in crate::cli) fn column(&self, query: &qr::Query, declared: &DeclaredSet) -> Option<Column> {
        let request = &query.request;
        let in_table = |id| request.return_keys.iter().position(|key| key.attribute == id);
        let (source, vr) = match &self.meaning {
            KeyMeaning::Own(own) => (ColumnSource::Own(*own), VR::UN),
            KeyMeaning::Attribute(attribute, _, vr) if attribute.id == AttributeId::RetrieveAETitle => {
                (ColumnSource::Empty, *vr)
            }
            KeyMeaning::Attribute(attribute, path, vr) => {
                (ColumnSource::Value { at: in_table(attribute.id)?, path: path.clone() }, *vr)
            }
            KeyMeaning::Declared(attribute) => {
                let (at, nodes) = match attribute.kept {
                    DeclaredColumn::InTable(id) => (in_table(id)?, [].as_slice()),
                    DeclaredColumn::Unit(number) => {
                        let mut answered = request.declared.iter().filter(|key| key.is_answered);
                        let at = answered.position(|key| key.unit.number == number)?;
                        let unit = declared.units().get(number)?;
                        (request.return_keys.len() + at, unit.items.as_slice())
                    }
                };
                let mut nodes = nodes;
                let mut path = Vec::new();
                for step in attribute.path.iter().skip(1) {
                    path.push(canonical_tag(nodes, step).0);
                    nodes = nodes.iter().find(|node| node.step == *step).map_or([].as_slice(), |node| &node.items);
                }
                (ColumnSource::Value { at, path }, attribute.vr)
            }
        };
        Some(Column { name: self.name.clone(), source, vr, yields: self.yields })
    }
}
