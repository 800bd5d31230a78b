//! From a [`FindRequest`] to SQL and back.
//!
//! Two kinds of condition come out of a matching key: one that SQLite can use an index for (see [`Narrowing`]), and one
//! that calls [`Matching::matches`] through the function `dcm_matches`. The first finds the candidates, the second has the
//! last word, so that each rule of PS3.4 C.2.2.2 is written once, in `model::matching`. Values of a query are always
//! parameters, never text of a statement.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use dicom_core::VR;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension, ToSql, params, params_from_iter};

use super::super::mounts::Mounts;
use super::super::packing::{Naming, UidSuffix, stored_time, uid_hash, unpack_time};
use super::super::schema::{has_own_column, is_packed_time};
use super::super::separated;
use super::super::sql_values::PathValue;
use super::answers::{Answers, Further, order_columns};
use super::availability::Obstacles;
use crate::db::plan::{can_answer_declared, is_computed_everywhere, is_selective_below_study, names_few, names_uids};
use crate::db::{Error, name_words};
use crate::model::attribute::{Attribute, AttributeId, Source};
use crate::model::declared::Unit;
use crate::model::find::{DateTimeKey, DeclaredKey, FindAnswer, FindRequest, MatchingKey};
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};
use crate::model::matching::{DateTimeRange, Matching, NamePart, Narrowing};

/// The conditions of the query that runs on a connection: `dcm_matches(n, value)` asks the n-th.
pub(in super::super) type Matchers = Arc<Mutex<Vec<Matcher>>>;

/// A condition that SQL has no words for.
#[derive(Debug)]
pub(in super::super) enum Matcher {
    One(Matching),
    /// `dcm_sample(n, row)`: holds for so many rows more, and then ends the statement with an error.
    Sample(u32),
    /// `dcm_matches(n, date, time)`.
    DateTime(DateTimeRange),
    /// `dcm_has(n, row)`.
    Rows(Arc<RowSet>),
}

/// Row numbers, a bit for each from the first to the last.
pub(in super::super) struct RowSet {
    first: i64,
    bits: Vec<u64>,
}

impl RowSet {
    /// `rows` in ascending order, and not far apart: see [`MAX_SPAN`].
    fn new(rows: &[i64]) -> Option<Self> {
        let (first, last) = (*rows.first()?, *rows.last()?);
        let span = usize::try_from(last.checked_sub(first)?).ok().filter(|span| *span < MAX_SPAN)?;
        let mut set = Self { first, bits: vec![0; span / 64 + 1] };
        for row in rows {
            let at = usize::try_from(row - first).ok()?;
            *set.bits.get_mut(at / 64)? |= 1 << (at % 64);
        }
        Some(set)
    }

    fn contains(&self, row: i64) -> bool {
        let at = row.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.bits.get(at / 64).map(|bits| bits >> (at % 64) & 1 == 1)).unwrap_or(false)
    }
}

impl std::fmt::Debug for RowSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowSet").field("first", &self.first).finish_non_exhaustive()
    }
}

/// Adds the functions that the statements below use.
pub(in super::super) fn register_functions(connection: &Connection, matchers: &Matchers) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    let pure = flags | FunctionFlags::SQLITE_DETERMINISTIC;

    // Not deterministic for SQLite: the same number means another key in the next query.
    let date_time_matchers = Arc::clone(matchers);
    connection.create_scalar_function("dcm_matches", 3, flags, move |context| {
        let number = usize::try_from(context.get::<i64>(0)?).unwrap_or(usize::MAX);
        let matchers = date_time_matchers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Matcher::DateTime(range)) = matchers.get(number) else { return Ok(false) };
        let text = |at| context.get_raw(at).as_str().unwrap_or_default();
        Ok(range.contains(text(1), text(2)))
    })?;
    let row_matchers = Arc::clone(matchers);
    connection.create_scalar_function("dcm_has", 2, flags, move |context| {
        let number = usize::try_from(context.get::<i64>(0)?).unwrap_or(usize::MAX);
        let matchers = row_matchers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Matcher::Rows(rows)) = matchers.get(number) else { return Ok(false) };
        Ok(rows.contains(context.get(1)?))
    })?;
    let samples = Arc::clone(matchers);
    connection.create_scalar_function("dcm_sample", 2, flags, move |context| {
        let number = usize::try_from(context.get::<i64>(0)?).unwrap_or(usize::MAX);
        let mut matchers = samples.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Matcher::Sample(left)) = matchers.get_mut(number) else { return Ok(false) };
        *left = left.checked_sub(1).ok_or_else(|| rusqlite::Error::UserFunctionError("the sample is over".into()))?;
        Ok(true)
    })?;
    let matchers = Arc::clone(matchers);
    connection.create_scalar_function("dcm_matches", 2, flags, move |context| {
        let number = usize::try_from(context.get::<i64>(0)?).unwrap_or(usize::MAX);
        let matchers = matchers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Matcher::One(matching)) = matchers.get(number) else { return Ok(false) };
        Ok(match context.get_raw(1) {
            ValueRef::Text(text) => std::str::from_utf8(text).is_ok_and(|text| matching.matches(text)),
            ValueRef::Integer(number) => matching.matches(&number.to_string()),
            ValueRef::Null => matching.matches(""),
            ValueRef::Real(_) | ValueRef::Blob(_) => false,
        })
    })?;
    connection.create_scalar_function("dcm_uid", 2, pure, |context| {
        let prefix = context.get_raw(1).as_str().unwrap_or_default();
        let mut uid = String::with_capacity(64);
        UidSuffix::unpack(context.get_raw(0), prefix, &mut uid);
        Ok(uid)
    })?;
    connection.create_scalar_function("dcm_uid_hash", 1, pure, |context| {
        Ok(uid_hash(context.get_raw(0).as_str().unwrap_or_default()))
    })?;
    // dcm_file_name(file_name, uid_suffix, uid_prefix, file_prefix, file_suffix, file_digits): the name of an instance's file.
    connection.create_scalar_function("dcm_file_name", 6, pure, |context| {
        let digits: Option<i64> = context.get(5)?;
        let naming = Naming {
            prefix: context.get(3)?,
            suffix: context.get(4)?,
            digits: digits.and_then(|digits| usize::try_from(digits).ok()),
        };
        let (stored, mut uid) = (context.get_raw(0), String::new());
        if naming.needs_uid(stored) {
            UidSuffix::unpack(context.get_raw(1), context.get_raw(2).as_str().unwrap_or_default(), &mut uid);
        }
        let name = naming.unpack(stored, &uid);
        Ok(match PathValue(&name).to_sql()? {
            ToSqlOutput::Borrowed(value) => Value::try_from(value).unwrap_or(Value::Null),
            ToSqlOutput::Owned(value) => value,
            _ => Value::Null,
        })
    })?;
    // dcm_name_words(group, group, group): the words of a name, as a JSON array.
    connection.create_scalar_function("dcm_name_words", 3, pure, |context| {
        let forms: Vec<_> = (0..3).map(|at| context.get_raw(at).as_str().unwrap_or_default()).collect();
        Ok(serde_json::Value::from_iter(name_words::words(&forms)).to_string())
    })?;
    // dcm_time(own, shared, acquisition): the text of a time that may be packed.
    connection.create_scalar_function("dcm_time", 3, pure, |context| {
        let mut text = String::with_capacity(16);
        let shared = context.get_raw(1).as_str().unwrap_or_default();
        match stored_time(context.get_raw(0), context.get_raw(2)) {
            ValueRef::Integer(packed) => unpack_time(packed, shared, &mut text),
            ValueRef::Text(own) => text.push_str(&String::from_utf8_lossy(own)),
            ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => text.push_str(shared),
        }
        Ok(text)
    })
}

/// The row of an instance: its instance group and the suffix of its UID there.
pub(in super::super) fn instance_key(
    connection: &Connection,
    uid: &str,
    hash: i32,
) -> rusqlite::Result<Option<(i64, UidSuffix)>> {
    let mut instance_groups = connection.prepare_cached(
        "SELECT h.id, h.uid_prefix FROM (SELECT instance_group FROM uid_lookup WHERE hash = ?1 UNION ALL \
         SELECT instance_group FROM uid_lookup_recent WHERE hash = ?1) u JOIN instance_group h ON h.id = u.instance_group",
    )?;
    let mut rows = instance_groups.query([hash])?;
    while let Some(row) = rows.next()? {
        let instance_group: i64 = row.get(0)?;
        let suffix = UidSuffix::pack(uid, row.get_ref(1)?.as_str().unwrap_or_default());
        let exists = connection
            .prepare_cached("SELECT 1 FROM instance WHERE instance_group = ?1 AND uid_suffix = ?2")?
            .query_row(params![instance_group, suffix], |_| Ok(()))
            .optional()?;
        if exists.is_some() {
            return Ok(Some((instance_group, suffix)));
        }
    }
    Ok(None)
}

/// Answers a query; see [`Reader::find`](crate::db::open::Reader::find).
pub(in super::super) fn run(
    connection: &Connection,
    matchers: &Matchers,
    mounts: &mut Mounts,
    request: &FindRequest,
    on_answer: impl FnMut(FindAnswer) -> ControlFlow<()>,
) -> Result<u64, Error> {
    if request.limit == Some(0) {
        return Ok(0);
    }
    // One transaction: the answers are of one moment, though there may be several statements.
    let transaction = connection.unchecked_transaction()?;
    let compiled = compile(connection, matchers, mounts, request, Thoroughness::Little)?;
    let mut answers = Answers::new(connection, request, on_answer);
    let mut give = || -> Result<(), Error> {
        let mut further =
            compiled.further.as_ref().map(|further| connection.prepare_cached(&further.sql)).transpose()?;
        let mut further = match (&mut further, &compiled.further) {
            (Some(prepared), Some(further)) => {
                Some(Further::new(prepared.query(params_from_iter(&further.parameters))?))
            }
            (Some(_) | None, _) => None,
        };
        // The rows that the first statement gave, while it was made for a sample; another that is made for the same gives them
        // again, and they come first.
        let mut sampled = 0;
        let mut each = |statement: &Statement, further: Option<&mut Further<'_>>, sampled: &mut u64| {
            let again = std::mem::take(sampled);
            give_rows(connection, statement, &mut answers, further, (again, sampled))
        };
        match each(&compiled.first, further.as_mut(), &mut sampled) {
            Err(error) if compiled.is_sample && is_end_of_sample(&error, matchers) => {}
            // There were not so many rows: that was all of it.
            ended => return ended.map_err(Error::from),
        }
        let all = compile(connection, matchers, mounts, request, Thoroughness::All)?;
        each(&all.first, further.as_mut(), &mut sampled).map_err(Error::from)
    };
    give()?;
    transaction.finish()?;
    Ok(answers.answered())
}

/// Hands out the answers of a statement, but for so many rows that were taken before; counts those that it takes.
fn give_rows<F: FnMut(FindAnswer) -> ControlFlow<()>>(
    connection: &Connection,
    statement: &Statement,
    answers: &mut Answers<'_, F>,
    mut further: Option<&mut Further<'_>>,
    (mut again, taken): (u64, &mut u64),
) -> rusqlite::Result<()> {
    let mut prepared = connection.prepare_cached(&statement.sql)?;
    let mut rows = prepared.query(params_from_iter(&statement.parameters))?;
    while let Some(row) = rows.next()? {
        if again > 0 {
            again -= 1;
            continue;
        }
        *taken += 1;
        if answers.take(row, further.as_deref_mut())?.is_break() {
            return Ok(());
        }
    }
    answers.finish(further).map(|_| ())
}

/// Whether a statement failed because it had met as many rows as a sample may.
fn is_end_of_sample(error: &rusqlite::Error, matchers: &Matchers) -> bool {
    let matchers = matchers.lock().unwrap_or_else(PoisonError::into_inner);
    error.sqlite_error_code() != Some(ErrorCode::OperationInterrupted)
        && matchers.iter().any(|matcher| matches!(matcher, Matcher::Sample(0)))
}

/// The statements of a query and their plans.
pub(in super::super) fn explain(
    connection: &Connection,
    matchers: &Matchers,
    mounts: &mut Mounts,
    request: &FindRequest,
) -> Result<String, Error> {
    let mut text = String::new();
    let look_ups = request.matching_keys.iter().filter_map(|key| match key.matching.narrowing() {
        _ if key.attribute != AttributeId::PatientName => None,
        Narrowing::NamePrefix(_) => Some(NAMES_WITH_PREFIX),
        Narrowing::NamePart(part) => Some(names_with_part(&part)),
        Narrowing::NameWord { .. } => Some(NAMES_WITH_WORD),
        Narrowing::None | Narrowing::Equals(_) | Narrowing::Between(..) | Narrowing::Prefix(_) => None,
    });
    let mut statements: Vec<_> =
        look_ups.map(|sql| Statement { sql: sql.to_owned(), parameters: Vec::new() }).collect();
    let compiled = compile(connection, matchers, mounts, request, Thoroughness::All)?;
    statements.push(compiled.first);
    statements.extend(compiled.further);
    for statement in statements {
        let plan = || -> rusqlite::Result<Vec<String>> {
            let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", statement.sql))?;
            // What is not bound is NULL; a plan does not depend on values.
            for (at, value) in statement.parameters.iter().enumerate() {
                explained.raw_bind_parameter(at + 1, value)?;
            }
            let mut rows = explained.raw_query();
            let mut steps = Vec::new();
            while let Some(row) = rows.next()? {
                steps.push(row.get(3)?);
            }
            Ok(steps)
        };
        text.push_str(&statement.sql);
        for line in plan()? {
            text.push_str("\n  ");
            text.push_str(&line);
        }
        text.push('\n');
    }
    Ok(text)
}

struct Statement {
    sql: String,
    parameters: Vec<Value>,
}

/// Collects parameters and matchers while the text of a statement grows.
pub(super) struct Compiler<'a> {
    connection: &'a Connection,
    parameters: Vec<Value>,
    matchers: Vec<Matcher>,
    /// Whether some study lies under more than one patient.
    pub(super) shared_studies: bool,
    /// What keeps objects from being at hand.
    pub(super) obstacles: Obstacles,
    thoroughness: Thoroughness,
    /// How the keys are looked for of which that is not clear beforehand.
    access: HashMap<AttributeId, Access>,
    /// Whether the statement goes from study to study, so that the number of the patient is at hand before its row is.
    in_study_order: bool,
}

/// How the entities are found that a key may match.
enum Access {
    /// They are few: these rows.
    Rows(Arc<[i64]>),
    /// They are more: what comes up in the order of the answers is held against these, before its row is read.
    Among(Arc<RowSet>),
    /// They are few: through the index on the column.
    Index,
    /// They are very many, or another key leads to fewer: those that come up are looked at.
    None,
    /// That is not known yet: those that come up are looked at.
    Unknown,
}

/// How much to look up before the first statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thoroughness {
    /// Names that begin with something, when they are few. For others there is a sample first.
    Little,
    /// All that is worth it.
    All,
}

/// How many rows are met, and their names looked at, before what a key on names leads to is looked up. A name that one patient
/// in ten has is likely to be among these, and its first answer does not wait for 100,000 row numbers, which take ten
/// milliseconds. They cost half a millisecond.
const SAMPLE: u32 = 100;

/// What a key leads to is looked up first when that is no more rows than this, or one in [`FEW_OF`] of all: found and sorted
/// before the first is answered. Where more match, the first comes up soon in the order of the answers.
const FEW: usize = 1_000;

/// See [`FEW`].
const FEW_OF: i64 = 200;

/// Up to one in so many patients are kept to hold against what comes up: it takes the place of reading each row, of which an
/// archive of a million patients gives some 200,000 a second. Gathering 100,000 takes ten milliseconds.
const SOME_OF: i64 = 4;

/// The most that are kept so.
const MOST: usize = 500_000;

/// How far apart the first and the last of them may be, row numbers of more patients than there are to be found anywhere:
/// 8 MB.
const MAX_SPAN: usize = 1 << 26;

struct Compiled {
    first: Statement,
    /// Whether the first may end early, and is to be made again with all [`Thoroughness`].
    is_sample: bool,
    /// Answers under further patients, where there may be some.
    further: Option<Statement>,
}

fn compile(
    connection: &Connection,
    matchers: &Matchers,
    mounts: &mut Mounts,
    request: &FindRequest,
    thoroughness: Thoroughness,
) -> Result<Compiled, Error> {
    let shared_studies = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM study_patient)")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))?;
    let keys = request.matching_keys.iter().map(|key| key.attribute);
    let obstacles = match keys.chain(request.return_keys.iter().map(|key| key.attribute)).any(is_availability) {
        true => Obstacles::of(connection, mounts)?,
        false => Obstacles::default(),
    };
    let mut compiler = Compiler {
        connection,
        parameters: Vec::new(),
        matchers: match thoroughness {
            Thoroughness::Little => Vec::new(),
            // A statement with the numbers of these may be at work.
            Thoroughness::All => std::mem::take(&mut matchers.lock().unwrap_or_else(PoisonError::into_inner)),
        },
        shared_studies,
        obstacles,
        thoroughness,
        access: HashMap::new(),
        in_study_order: false,
    };
    compiler.choose_access(request)?;
    let first = compiler.statement(request, Under::FirstPatient)?;
    let further = match compiler.may_answer_under_further_patients(request) {
        true => Some(compiler.statement(request, Under::FurtherPatient)?),
        false => None,
    };
    let is_sample = compiler.matchers.iter().any(|matcher| matches!(matcher, Matcher::Sample(..)));
    *matchers.lock().unwrap_or_else(PoisonError::into_inner) = compiler.matchers;
    Ok(Compiled { first, is_sample, further })
}

/// Whether a key is matched, or answered, that says something of the patient.
fn asks_for_patient(request: &FindRequest, answered: bool) -> bool {
    let matched = request.matching_keys.iter().map(|key| key.attribute);
    let moments = request.date_time_keys.iter().map(|key| key.date);
    let is_of_patient = |id: AttributeId| id.attribute().level == Patient;
    matched.chain(moments).any(is_of_patient)
        || (answered && request.return_keys.iter().any(|key| is_of_patient(key.attribute)))
        || request.declared.iter().any(|key| key.unit.level == Patient && (answered || key.matching.is_some()))
}

/// Patients with a component group from ?1 to before ?2, at most ?3 of each kind. Those with any word have no group given.
const NAMES_WITH_PREFIX: &str = "\
    SELECT * FROM (SELECT id, patient_name_norm FROM patient WHERE patient_name_norm <> '' AND patient_name_norm >= ?1 \
     AND patient_name_norm < ifnull(?2, x'') LIMIT ?3) \
    UNION ALL SELECT * FROM (SELECT id, patient_name_ideographic_norm FROM patient WHERE patient_name_ideographic_norm <> '' \
     AND patient_name_ideographic_norm >= ?1 AND patient_name_ideographic_norm < ifnull(?2, x'') LIMIT ?3) \
    UNION ALL SELECT * FROM (SELECT id, patient_name_phonetic_norm FROM patient WHERE patient_name_phonetic_norm <> '' \
     AND patient_name_phonetic_norm >= ?1 AND patient_name_phonetic_norm < ifnull(?2, x'') LIMIT ?3) \
    UNION ALL SELECT * FROM (SELECT patient, NULL FROM patient_name_word \
     WHERE word = (SELECT id FROM name_word WHERE word = '') LIMIT ?3)";

/// At most ?3 patients with a word that has ?1 in it, begins with it (and lies before ?2), ends with it, is it.
fn names_with_part(part: &NamePart) -> &'static str {
    match (part.starts, part.ends) {
        (false, false) => {
            "SELECT patient FROM patient_name_word WHERE word IN \
             (SELECT id FROM name_word WHERE instr(word, ?1) OR word = '') LIMIT ?3"
        }
        (true, false) => {
            "SELECT patient FROM patient_name_word WHERE word IN \
             (SELECT id FROM name_word WHERE word >= ?1 AND word < ifnull(?2, x'') \
             UNION ALL SELECT id FROM name_word WHERE word = '') LIMIT ?3"
        }
        (false, true) => {
            "SELECT patient FROM patient_name_word WHERE word IN \
             (SELECT id FROM name_word WHERE substr(word, -length(?1)) = ?1 OR word = '') LIMIT ?3"
        }
        (true, true) => {
            "SELECT patient FROM patient_name_word WHERE word IN \
             (SELECT id FROM name_word WHERE word IN (?1, '')) LIMIT ?3"
        }
    }
}

/// At most ?3 patients with a word from ?1 to before ?2, or with a code of ?4 and ?5.
const NAMES_WITH_WORD: &str = "\
    SELECT patient FROM patient_name_word WHERE word IN (\
     SELECT id FROM name_word WHERE word >= ?1 AND word < ifnull(?2, x'') \
     UNION ALL SELECT id FROM name_word WHERE sound <> '' AND sound IN (?4, ?5) \
     UNION ALL SELECT id FROM name_word WHERE other_sound <> '' AND other_sound IN (?4, ?5) \
     UNION ALL SELECT id FROM name_word WHERE word = '') LIMIT ?3";

/// The first text in byte order after all that begin with this; `None` where there is none.
fn after_prefix(prefix: &str) -> Option<String> {
    let kept = prefix.trim_end_matches(char::MAX);
    let last = kept.chars().next_back()?;
    // The range leaves surrogates out.
    let next = (last..=char::MAX).nth(1)?;
    Some(format!("{}{next}", kept.strip_suffix(last)?))
}

/// Which patient of a study is meant; nearly all have one only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Under {
    /// That of the study's row.
    FirstPatient,
    /// One under whom it was found besides.
    FurtherPatient,
}

impl Compiler<'_> {
    /// Whether there may be answers that are not those under the first patient of a study. A study itself is answered under
    /// a further one where the first does not match; a series and an instance under the patients that its objects name.
    fn may_answer_under_further_patients(&self, request: &FindRequest) -> bool {
        self.shared_studies && request.level != Patient && asks_for_patient(request, request.level != Study)
    }

    /// Decides for each key that an index could serve, but may match a large part of the archive, whether it is used.
    fn choose_access(&mut self, request: &FindRequest) -> rusqlite::Result<()> {
        let pinned = request.matching_keys.iter().any(names_few);
        for key in &request.matching_keys {
            let narrowing = key.matching.narrowing();
            let access = match (key.attribute, &narrowing) {
                (
                    AttributeId::PatientName,
                    Narrowing::NamePrefix(_) | Narrowing::NamePart(_) | Narrowing::NameWord { .. },
                )
                | (AttributeId::PatientID | AttributeId::AccessionNumber, Narrowing::Prefix(_))
                    if pinned =>
                {
                    Access::None
                }
                (AttributeId::PatientName, Narrowing::NamePrefix(prefix)) => {
                    self.patients(&key.matching, NAMES_WITH_PREFIX, prefix, &[])?
                }
                (AttributeId::PatientName, Narrowing::NamePart(part)) => {
                    self.patients(&key.matching, names_with_part(part), &part.text, &[])?
                }
                (AttributeId::PatientName, Narrowing::NameWord { prefix, sounds }) => {
                    self.patients(&key.matching, NAMES_WITH_WORD, prefix, sounds)?
                }
                (AttributeId::PatientID | AttributeId::AccessionNumber, Narrowing::Prefix(prefix)) => {
                    self.index(key.attribute, prefix, &after_prefix(prefix))?
                }
                (AttributeId::PatientID | AttributeId::AccessionNumber, Narrowing::Equals(values))
                    if values.iter().any(String::is_empty) =>
                {
                    // Half of an archive can be without.
                    if pinned { Access::None } else { self.index(key.attribute, "", &Some("\u{1}".to_owned()))? }
                }
                _ => continue,
            };
            self.access.insert(key.attribute, access);
        }
        Ok(())
    }

    /// The patients that a statement finds, unless they are too many. Where it gives the group of the name by which it
    /// found one, `matching` may have a word already.
    fn patients(&self, matching: &Matching, sql: &str, text: &str, sounds: &[String]) -> rusqlite::Result<Access> {
        let few = self.one_in(FEW_OF, "patient")?.max(FEW);
        let most = match (self.thoroughness, sql == NAMES_WITH_PREFIX) {
            (Thoroughness::All, _) => self.one_in(SOME_OF, "patient")?.clamp(few, MOST.max(few)),
            (Thoroughness::Little, true) => FEW,
            // All words have to be looked at first.
            (Thoroughness::Little, false) => return Ok(Access::Unknown),
        };
        let mut statement = self.connection.prepare_cached(sql)?;
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let mut sounds = sounds.iter().map(String::as_str);
        let (one, other) = (sounds.next(), sounds.next());
        let after = after_prefix(text);
        let parameters: [&dyn ToSql; 5] = [&text, &after, &limit, &one, &other];
        let used = statement.parameter_count().min(parameters.len());
        let gives_group = statement.column_count() > 1;
        let mut found = statement.query(&parameters[..used])?;
        let (mut rows, mut seen) = (Vec::new(), 0_usize);
        while let Some(row) = found.next()? {
            seen += 1;
            if seen > most {
                return Ok(match self.thoroughness {
                    Thoroughness::Little => Access::Unknown,
                    Thoroughness::All => Access::None,
                });
            }
            let may_match = match row.get_ref(1) {
                Ok(ValueRef::Text(group)) if gives_group => {
                    std::str::from_utf8(group).is_ok_and(|group| matching.may_match_name_group(group))
                }
                Ok(_) | Err(_) => true,
            };
            if may_match {
                rows.push(row.get::<_, i64>(0)?);
            }
        }
        rows.sort_unstable();
        rows.dedup();
        Ok(if rows.len() > few {
            RowSet::new(&rows).map_or(Access::None, |rows| Access::Among(Arc::new(rows)))
        } else {
            Access::Rows(rows.into())
        })
    }

    /// Whether the values from the one to before the other are those of few rows.
    fn index(&self, id: AttributeId, from: &str, to: &Option<String>) -> rusqlite::Result<Access> {
        let (table, column) =
            if id == AttributeId::PatientID { ("patient", "patient_id") } else { ("study", "accession_number") };
        let few = self.one_in(FEW_OF, table)?.max(FEW);
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {column} >= ?1 AND (?2 IS NULL OR {column} < ?2) LIMIT ?3)"
        ))?;
        let limit = i64::try_from(few).unwrap_or(i64::MAX).saturating_add(1);
        let count: i64 = statement.query_row(params![from, to, limit], |row| row.get(0))?;
        Ok(if count < limit { Access::Index } else { Access::None })
    }

    /// One in so many rows of a table.
    fn one_in(&self, many: i64, table: &str) -> rusqlite::Result<usize> {
        // Row numbers are given one after the other, so the last is about the number of rows.
        let mut statement = self.connection.prepare_cached(&format!("SELECT ifnull(max(id), 0) FROM {table}"))?;
        let last: i64 = statement.query_row([], |row| row.get(0))?;
        Ok(usize::try_from(last / many).unwrap_or(0))
    }

    /// Whether a key is to be looked up in an index.
    fn uses_index(&self, key: &MatchingKey) -> bool {
        !matches!(self.access.get(&key.attribute), Some(Access::None | Access::Unknown))
    }

    fn statement(&mut self, request: &FindRequest, under: Under) -> Result<Statement, Error> {
        self.parameters.clear();
        let level = request.level;
        let mut columns = vec![character_set(level).to_owned()];
        for key in &request.return_keys {
            columns.push(self.answer(key.attribute.attribute(), level)?);
        }

        for key in request.declared.iter().filter(|key| key.is_answered) {
            columns.push(self.declared_answer(key, level)?);
        }
        let merges = self.may_answer_under_further_patients(request);
        if merges || level == Patient {
            columns.extend(order_columns(level).iter().map(|&column| column.to_owned()));
        }

        let (declared_above, declared_below): (Vec<_>, Vec<_>) =
            request.declared.iter().partition(|key| key.unit.level <= level);
        let (mut above, mut below): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for key in &request.matching_keys {
            if key.attribute.attribute().level <= level || is_computed_everywhere(key.attribute) {
                above.push(key);
            } else {
                below.push(key);
            }
        }
        let (moments_above, moments_below): (Vec<_>, Vec<_>) =
            request.date_time_keys.iter().partition(|key| key.date.attribute().level <= level);
        let asked = |wanted: QueryRetrieveLevel| {
            let keys = above.iter().map(|key| key.attribute).chain(moments_above.iter().map(|key| key.date));
            keys.chain(request.return_keys.iter().map(|key| key.attribute)).any(|id| id.attribute().level == wanted)
                || request.declared.iter().any(|key| key.unit.level == wanted)
        };
        // Studies by the patients that are found first, or else as they come in the order of the answers.
        let from_patient = above.iter().any(|key| match key.attribute {
            AttributeId::PatientID => self.uses_index(key) && key.matching.narrowing() != Narrowing::None,
            AttributeId::PatientName => matches!(self.access.get(&key.attribute), Some(Access::Rows(_))),
            _ => false,
        });
        self.in_study_order = level != Patient && under == Under::FirstPatient && !from_patient;
        let patient = match under {
            Under::FirstPatient if from_patient => "patient p JOIN study s ON s.patient = p.id",
            Under::FirstPatient if asked(Patient) => "study s CROSS JOIN patient p ON p.id = s.patient",
            Under::FirstPatient => "study s",
            // Of these there are few, unless a key leads to fewer.
            Under::FurtherPatient if above.iter().any(|key| names_few(key)) => {
                "patient p JOIN study_patient sp ON sp.patient = p.id JOIN study s ON s.id = sp.study"
            }
            Under::FurtherPatient => {
                "study_patient sp CROSS JOIN patient p ON p.id = sp.patient CROSS JOIN study s ON s.id = sp.study"
            }
        };
        // From the study down, so that the answers come in order as they are found, with nothing to be sorted but what one
        // study holds; unless a UID names the few rows that can match.
        let join = if above.iter().any(|key| is_selective_below_study(key)) { "JOIN" } else { "CROSS JOIN" };
        let from = match level {
            Patient => "patient p".to_owned(),
            Study => patient.to_owned(),
            Series => format!("{patient} {join} study_series e ON e.study = s.id"),
            Image => format!(
                "{patient} {join} study_series e ON e.study = s.id {join} instance_group h ON h.series = e.id \
                 {join} instance i ON i.instance_group = h.id"
            ),
        };

        let mut conditions = Vec::new();
        if under == Under::FirstPatient && self.access.values().any(|access| matches!(access, Access::Unknown)) {
            // Of what each row met has to fulfil this comes first.
            let row = if level == Patient { "p.id" } else { "s.id" };
            conditions.push(format!("dcm_sample({}, {row})", self.matcher(Matcher::Sample(SAMPLE))));
        }
        for key in &above {
            conditions.push(self.condition(key, level)?);
        }
        for key in &moments_above {
            conditions.push(self.date_time_condition(key, level)?);
        }
        conditions.extend(declared_above.iter().filter_map(|key| self.declared_condition(key, level)));
        if !below.is_empty() || !moments_below.is_empty() || declared_below.iter().any(|key| key.matching.is_some()) {
            conditions.push(self.below(level, &below, &moments_below, &declared_below)?);
        }
        conditions.extend(self.arrival_condition(&request.arrival, level));
        if merges {
            conditions.extend(names_this_patient(level, under).map(str::to_owned));
        }

        let mut sql = format!("SELECT {} FROM {from}", columns.join(", "));
        if !conditions.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&conditions.join(" AND "));
        }
        sql.push_str(match level {
            // As the index on them has it.
            Patient => {
                " ORDER BY p.patient_id, p.identity, p.issuer_of_patient_id, p.patient_birth_date, p.values_hash, p.id"
            }
            Study => " ORDER BY s.study_date DESC, s.study_time DESC, s.patient, s.id",
            Series => " ORDER BY s.study_date DESC, s.study_time DESC, s.patient, s.id, CAST(e.series_number AS INTEGER), e.id",
            Image => {
                " ORDER BY s.study_date DESC, s.study_time DESC, s.patient, s.id, CAST(e.series_number AS INTEGER), e.id, \
                 CAST(i.instance_number AS INTEGER), i.instance_group, i.uid_suffix"
            }
        });
        if under == Under::FurtherPatient && level != Image {
            // Under the first of the further patients that match.
            sql.push_str(", p.patient_id, p.identity, p.issuer_of_patient_id");
        }
        Ok(Statement { sql, parameters: std::mem::take(&mut self.parameters) })
    }

    pub(super) fn parameter(&mut self, value: impl Into<Value>) -> String {
        self.parameters.push(value.into());
        format!("?{}", self.parameters.len())
    }

    fn list(&mut self, values: &[String]) -> String {
        let json = serde_json::Value::from(values).to_string();
        format!("(SELECT value FROM json_each({}))", self.parameter(json))
    }

    /// The condition of one key on the row of the level that is asked for, or on one of its ancestors.
    fn condition(&mut self, key: &MatchingKey, level: QueryRetrieveLevel) -> Result<String, Error> {
        let attribute = key.attribute.attribute();
        if attribute.id == AttributeId::SOPInstanceUID
            && let Narrowing::Equals(uids) = key.matching.narrowing()
        {
            return self.sop_instances(&uids);
        }
        let mut value = self.value(attribute, level)?;
        if !self.uses_index(key) {
            // The plus keeps SQLite from using the index.
            value.insert(0, '+');
        }
        let plain_column = attribute.is_stored() && (attribute.level != Image || is_instance_group_key(attribute.id));
        let separated = if plain_column && key.matching.looks_into_separated_values() {
            separated::rows(self.connection, attribute)?
        } else {
            None
        };
        let narrowed = match key.matching.narrowing() {
            Narrowing::Equals(values) if plain_column => {
                let equals = match values.as_slice() {
                    [one] => format!("{value} = {}", self.parameter(one.clone())),
                    many => format!("{value} IN {}", self.list(many)),
                };
                if separated.is_none() {
                    return Ok(equals);
                }
                Some(equals)
            }
            Narrowing::Between(from, to) if plain_column => {
                Some(format!("{value} BETWEEN {} AND {}", self.parameter(from), self.parameter(to)))
            }
            Narrowing::Prefix(prefix) if plain_column => Some(self.prefix(&value, &prefix)),
            Narrowing::NamePrefix(_) | Narrowing::NamePart(_) | Narrowing::NameWord { .. } => {
                let row = if self.in_study_order { "s.patient" } else { "p.id" };
                self.patient_rows(attribute.id, row)
            }
            Narrowing::Equals(_) | Narrowing::Between(..) | Narrowing::Prefix(_) | Narrowing::None => None,
        };
        let narrowed = match separated {
            Some(rows) => narrowed.map(|narrowed| format!("({narrowed} OR {rows})")),
            None => narrowed,
        };
        let number = self.matcher(Matcher::One(key.matching.clone()));
        let last_word = format!("dcm_matches({number}, {value})");
        Ok(narrowed.map_or_else(|| last_word.clone(), |narrowed| format!("{narrowed} AND {last_word}")))
    }

    /// The condition of a declared attribute, if it has one.
    fn declared_condition(&mut self, key: &DeclaredKey, level: QueryRetrieveLevel) -> Option<String> {
        let number = self.matcher(Matcher::One(key.matching.clone()?));
        if level == Patient && key.unit.level == Patient {
            // What the objects of any one study say.
            return Some(format!(
                "EXISTS (SELECT 1 FROM study a WHERE {UNDER_THIS_PATIENT} AND dcm_matches({number}, {}))",
                declared_of_patient(&key.unit, "a")
            ));
        }
        Some(format!("dcm_matches({number}, {})", declared_value(&key.unit)))
    }

    /// The parameter that names a matcher.
    fn matcher(&mut self, matcher: Matcher) -> String {
        let number = i64::try_from(self.matchers.len()).unwrap_or(i64::MAX);
        self.matchers.push(matcher);
        self.parameter(number)
    }

    fn date_time_condition(&mut self, key: &DateTimeKey, level: QueryRetrieveLevel) -> Result<String, Error> {
        let date = self.value(key.date.attribute(), level)?;
        let time = self.value(key.time.attribute(), level)?;
        let number = self.matcher(Matcher::DateTime(key.range.clone()));
        Ok(format!("dcm_matches({number}, {date}, {time})"))
    }

    fn prefix(&mut self, column: &str, prefix: &str) -> String {
        let from = self.parameter(prefix.to_owned());
        match after_prefix(prefix) {
            Some(after) => format!("{column} >= {from} AND {column} < {}", self.parameter(after)),
            None => format!("{column} >= {from}"),
        }
    }

    /// The patients that were found for a key on their names. `patient` is SQL for the number of the row.
    fn patient_rows(&mut self, id: AttributeId, patient: &str) -> Option<String> {
        match self.access.get(&id)? {
            Access::Rows(rows) => {
                let rows = serde_json::Value::from(&**rows).to_string();
                Some(format!("{patient} IN (SELECT value FROM json_each({}))", self.parameter(rows)))
            }
            Access::Among(rows) => {
                let rows = Matcher::Rows(Arc::clone(rows));
                Some(format!("dcm_has({}, {patient})", self.matcher(rows)))
            }
            Access::Index | Access::None | Access::Unknown => None,
        }
    }

    /// SOP Instance UIDs, by the rows that they lead to.
    fn sop_instances(&mut self, uids: &[String]) -> Result<String, Error> {
        let mut keys = Vec::new();
        for uid in uids {
            keys.extend(instance_key(self.connection, uid, uid_hash(uid))?);
        }
        if let [(instance_group, suffix)] = keys.as_slice() {
            let suffix = match suffix {
                UidSuffix::Packed(packed) => Value::Blob(packed.clone()),
                UidSuffix::Text(text) => Value::Text(text.clone()),
            };
            return Ok(format!(
                "i.instance_group = {} AND i.uid_suffix = {}",
                self.parameter(*instance_group),
                self.parameter(suffix)
            ));
        }
        let json: Vec<_> = keys
            .iter()
            .map(|(instance_group, suffix)| match suffix {
                UidSuffix::Packed(packed) => {
                    let hex: String = packed.iter().map(|byte| format!("{byte:02X}")).collect();
                    serde_json::json!([instance_group, hex, null])
                }
                UidSuffix::Text(text) => serde_json::json!([instance_group, null, text]),
            })
            .collect();
        Ok(format!(
            "(i.instance_group, i.uid_suffix) IN (SELECT value ->> 0, ifnull(unhex(value ->> 1), value ->> 2) FROM json_each({}))",
            self.parameter(serde_json::Value::from(json).to_string())
        ))
    }

    /// Keys below the level that is asked for: some one descendant fulfils all of them.
    fn below(
        &mut self,
        level: QueryRetrieveLevel,
        keys: &[&MatchingKey],
        moments: &[&DateTimeKey],
        declared: &[&DeclaredKey],
    ) -> Result<String, Error> {
        let asked = keys.iter().map(|key| key.attribute).chain(moments.iter().map(|key| key.date));
        let declared_levels = declared.iter().filter(|key| key.matching.is_some()).map(|key| key.unit.level);
        let deepest = asked.map(|id| id.attribute().level).chain(declared_levels.clone()).max().unwrap_or(level);
        let mut levels = keys.iter().map(|key| key.attribute.attribute().level).chain(declared_levels);
        let needs_study = level == Patient && levels.any(|level| level == Study);
        let mut conditions = Vec::new();
        let mut selective = false;
        for key in keys {
            selective |=
                is_selective_below_study(key) || (key.attribute == AttributeId::StudyInstanceUID && names_uids(key));
            conditions.push(self.condition(key, deepest)?);
        }
        for key in moments {
            conditions.push(self.date_time_condition(key, deepest)?);
        }
        conditions.extend(declared.iter().filter_map(|key| self.declared_condition(key, deepest)));
        let (parent, from) = match (level, deepest) {
            (Patient, Study) => ("s.patient", "study s".to_owned()),
            (Patient, _) => {
                ("s.patient", format!("study s JOIN study_series e ON e.study = s.id{}", instance_group_join(deepest)))
            }
            (Study, _) => ("e.study", format!("study_series e{}", instance_group_join(deepest))),
            (Series | Image, _) => {
                ("h.series", "instance_group h JOIN instance i ON i.instance_group = h.id".to_owned())
            }
        };
        debug_assert!(!needs_study || from.contains("study s"), "the study is joined where it is asked for");
        let own = match level {
            Patient => "p.id",
            Study => "s.id",
            Series | Image => "e.id",
        };
        let conditions = conditions.join(" AND ");
        if level == Patient && self.shared_studies {
            return Ok(format!(
                "EXISTS (SELECT 1 FROM {from} WHERE (s.patient = p.id OR s.id IN \
                 (SELECT study FROM study_patient WHERE patient = p.id)) AND {conditions})"
            ));
        }
        Ok(if selective {
            // Few rows below: find them first, then their ancestors.
            format!("{own} IN (SELECT {parent} FROM {from} WHERE {conditions})")
        } else {
            format!("EXISTS (SELECT 1 FROM {from} WHERE {parent} = {own} AND {conditions})")
        })
    }

    /// SQL for the value of an attribute at its own level or below it.
    fn value(&mut self, attribute: &Attribute, level: QueryRetrieveLevel) -> Result<String, Error> {
        let column = attribute.column;
        let sql = match (attribute.id, attribute.source) {
            (_, Source::AlwaysEmpty) | (AttributeId::RetrieveAETitle, _) => "''".to_owned(),
            (AttributeId::InstanceAvailability, _) => self.availability(level),
            (AttributeId::SOPInstanceUID, _) => "dcm_uid(i.uid_suffix, h.uid_prefix)".to_owned(),
            (AttributeId::InstanceNumber, _) => "CAST(i.instance_number AS TEXT)".to_owned(),
            (AttributeId::NumberOfPatientRelatedStudies, _) => self.of_person("count(*)"),
            (AttributeId::NumberOfPatientRelatedSeries, _) => self.of_person("ifnull(sum(c.series_count), 0)"),
            (AttributeId::NumberOfPatientRelatedInstances, _) => self.of_person("ifnull(sum(c.instance_count), 0)"),
            (AttributeId::ModalitiesInStudy, _) => "s.modalities_in_study".to_owned(),
            (AttributeId::AnatomicRegionsInStudyCodeSequence, _) => {
                "s.anatomic_regions_in_study_code_sequence".to_owned()
            }
            (AttributeId::SOPClassesInStudy, _) => "s.sop_classes_in_study".to_owned(),
            (AttributeId::NumberOfStudyRelatedSeries, _) => "s.series_count".to_owned(),
            (AttributeId::NumberOfStudyRelatedInstances, _) => "s.instance_count".to_owned(),
            (AttributeId::NumberOfSeriesRelatedInstances, _) => "e.instance_count".to_owned(),
            (id, Source::Computed) => return Err(Error::Unsupported(format!("{id} is not computed"))),
            (_, Source::DataSet | Source::TransferSyntax) => match attribute.level {
                Patient => format!("p.{column}"),
                Study => format!("s.{column}"),
                Series => format!("e.{column}"),
                Image if is_instance_group_key(attribute.id) => format!("h.{column}"),
                Image if is_packed_time(attribute.id) => {
                    format!("dcm_time(i.{column}, h.{column}, i.acquisition_time)")
                }
                Image if has_own_column(attribute.id) => format!("CAST(ifnull(i.{column}, h.{column}) AS TEXT)"),
                Image => format!(
                    "CASE WHEN i.diff IS NULL THEN h.\"{column}\" ELSE ifnull(i.diff ->> '$.{column}', h.\"{column}\") END"
                ),
            },
        };
        Ok(sql)
    }

    /// A sum over the studies `c` of all descriptions of a patient. No study is under two of them.
    fn of_person(&self, sum: &str) -> String {
        let mut one = format!("(SELECT {sum} FROM study c WHERE c.patient = p.id)");
        let mut several =
            format!("(SELECT {sum} FROM patient q JOIN study c ON c.patient = q.id WHERE q.person = p.person)");
        if self.shared_studies {
            one = format!(
                "({one} + (SELECT {sum} FROM study_patient x JOIN study c ON c.id = x.study WHERE x.patient = p.id))"
            );
            several = format!(
                "({several} + (SELECT {sum} FROM patient q JOIN study_patient x ON x.patient = q.id \
                 JOIN study c ON c.id = x.study WHERE q.person = p.person))"
            );
        }
        format!("(CASE WHEN p.person IS NULL THEN {one} ELSE {several} END)")
    }

    /// SQL for a declared attribute in an answer at a level.
    fn declared_answer(&mut self, key: &DeclaredKey, level: QueryRetrieveLevel) -> Result<String, Error> {
        let unit = &key.unit;
        if level == Patient && unit.level == Patient {
            // Of the studies that match, what the most complete one says.
            let matches = match &key.matching {
                Some(matching) => format!("AND dcm_matches({}, w)", self.matcher(Matcher::One(matching.clone()))),
                None => String::new(),
            };
            return Ok(format!(
                "ifnull((SELECT w FROM (SELECT {} AS w FROM study a WHERE {UNDER_THIS_PATIENT}) WHERE w <> '' {matches} \
                 ORDER BY {} LIMIT 1), '')",
                declared_of_patient(unit, "a"),
                most_complete_first(unit.vr, "w")
            ));
        }
        if unit.level <= level {
            return Ok(declared_value(unit));
        }
        if !can_answer_declared(unit, level) {
            return Err(Error::Unsupported(format!("{} is not answered at the {level} level", unit.root)));
        }
        // A study answers for its series.
        let values = format!(
            "(SELECT group_concat(v, '\\') FROM (SELECT DISTINCT {} AS v FROM study_series e WHERE e.study = s.id \
             AND v <> '' ORDER BY v))",
            declared_value(unit)
        );
        Ok(each_once(unit.vr, &values))
    }

    /// SQL for an attribute in an answer at a level.
    fn answer(&mut self, attribute: &Attribute, level: QueryRetrieveLevel) -> Result<String, Error> {
        if attribute.level <= level || is_computed_everywhere(attribute.id) {
            return self.value(attribute, level);
        }
        let column = attribute.column;
        // A series attribute of a study: the values that its series have.
        match (level, attribute.level, attribute.source) {
            (Study, Series, Source::DataSet) => Ok(each_once(
                attribute.vr,
                &format!(
                    "(SELECT group_concat(v, '\\') FROM (SELECT DISTINCT {column} AS v FROM study_series \
                     WHERE study = s.id AND {column} <> '' ORDER BY {column}))"
                ),
            )),
            (Patient | Study | Series | Image, ..) => {
                Err(Error::Unsupported(format!("{} is not answered at the {level} level", attribute.keyword)))
            }
        }
    }
}

/// SQL for the value of a declared attribute at its own level or below it. The key is of our making: letters, digits, `+`
/// and `_`.
fn declared_value(unit: &Unit) -> String {
    let key = &unit.key;
    match unit.level {
        Patient => declared_of_patient(unit, "s"),
        Study => declared_above(unit, "study_series b JOIN instance_group c ON c.series = b.id", "b.study = s.id"),
        Series => declared_above(unit, "instance_group c", "c.series = e.id"),
        Image => format!("ifnull(ifnull(i.diff ->> '$.\"{key}\"', h.declared ->> '$.\"{key}\"'), '')"),
    }
}

/// Of what the objects of an entity say the most complete value counts (docs/adr/0008).
fn declared_above(unit: &Unit, from: &str, own: &str) -> String {
    format!(
        "ifnull((SELECT c.declared_above ->> '$.\"{}\"' AS v FROM {from} WHERE {own} AND v <> '' ORDER BY {} LIMIT 1), '')",
        unit.key,
        most_complete_first(unit.vr, "v")
    )
}

/// What the objects of a study say that name the patient `p`: studies answer for themselves.
fn declared_of_patient(unit: &Unit, study: &str) -> String {
    let own = format!("b.study = {study}.id AND ifnull(c.patient, {study}.patient) = p.id");
    declared_above(unit, "study_series b JOIN instance_group c ON c.series = b.id", &own)
}

/// The order of `is_more_complete` in rules.rs.
fn most_complete_first(vr: VR, value: &str) -> String {
    format!("dcm_is_valid('{}', {value}) DESC, octet_length({value}) DESC, {value}", vr.to_string())
}

/// Whether a study `a` is under the patient `p`.
const UNDER_THIS_PATIENT: &str = "(a.patient = p.id OR a.id IN (SELECT study FROM study_patient WHERE patient = p.id))";

/// The values of a study's series, put together by `values`, each once. A text that may hold a backslash is one value.
fn each_once(vr: VR, values: &str) -> String {
    match vr {
        VR::ST | VR::LT | VR::UT | VR::UR | VR::SQ => format!("ifnull({values}, '')"),
        _ => format!("ifnull(dcm_each_once({values}), '')"),
    }
}

/// Whether a series or an instance has objects, or is one, that name the patient under whom it is answered.
fn names_this_patient(level: QueryRetrieveLevel, under: Under) -> Option<&'static str> {
    match (level, under) {
        (Patient | Study, _) => None,
        (Series, Under::FirstPatient) => Some(
            "(NOT EXISTS (SELECT 1 FROM study_patient x WHERE x.study = s.id) \
             OR EXISTS (SELECT 1 FROM instance_group o WHERE o.series = e.id AND o.patient IS NULL))",
        ),
        (Series, Under::FurtherPatient) => {
            Some("EXISTS (SELECT 1 FROM instance_group o WHERE o.series = e.id AND o.patient = p.id)")
        }
        (Image, Under::FirstPatient) => Some("h.patient IS NULL"),
        (Image, Under::FurtherPatient) => Some("h.patient = p.id"),
    }
}

fn is_availability(id: AttributeId) -> bool {
    id == AttributeId::InstanceAvailability
}

/// Attributes in which all instances of an instance group agree.
fn is_instance_group_key(id: AttributeId) -> bool {
    matches!(id, AttributeId::SOPClassUID | AttributeId::AvailableTransferSyntaxUID)
}

fn instance_group_join(deepest: QueryRetrieveLevel) -> &'static str {
    if deepest == Image {
        " JOIN instance_group h ON h.series = e.id JOIN instance i ON i.instance_group = h.id"
    } else {
        ""
    }
}

fn character_set(level: QueryRetrieveLevel) -> &'static str {
    match level {
        Patient => "p.character_set",
        Study => "s.character_set",
        Series => "e.character_set",
        Image => {
            "CASE WHEN i.diff IS NULL THEN h.specific_character_set ELSE \
                  ifnull(i.diff ->> '$.specific_character_set', h.specific_character_set) END"
        }
    }
}
