//! The columns of an export: their types, and what a found row has in each.

use std::borrow::Cow;

use anyhow::bail;
use dicom_core::VR;
use serde_json::{Map, Value};

use crate::cli::keys::asked::{AskedColumn, KeyReader};
use crate::cli::keys::columns::{CellValue, Column, ColumnSource, FoundRow, OwnColumn};
use crate::cli::output::path_hex;
use crate::export::pseudonym::{Pseudonyms, Treatment, treatment};
use crate::export::table::{TableColumn, TableSchema, snake_case};
use crate::export::value::{ColumnType, TableValue, ValueFit, earlier, has_several_values, in_utc, typed};
use crate::model::attribute::{Attribute, Multiplicity};
use crate::model::calendar::civil;
use crate::model::declared::DeclaredSet;
use crate::model::level::QueryRetrieveLevel;
use crate::qr;

/// A column of the table with its source.
struct ExportColumn {
    column: Column,
    /// Whether it has the moments of the column before it, in UTC.
    is_in_utc: bool,
    kind: ColumnType,
    is_list: bool,
    treatment: Treatment,
}

/// Source of the partition of a row.
enum PartitionSource {
    None,
    /// Year of Study Date, or year and month.
    StudyDate {
        at: usize,
        with_month: bool,
    },
    /// A text column. It names the directories, so the files leave it out.
    Column(usize),
}

/// Makes rows of a table.
pub(super) struct RowMaker {
    columns: Vec<ExportColumn>,
    /// Columns that tell patients apart, where pseudonyms need them.
    patient: Option<PatientColumns<Column>>,
    pseudonyms: Option<Pseudonyms>,
    /// Timezone Offset From UTC of the data set, where a column needs it.
    zone: Option<Column>,
    partition: PartitionSource,
}

/// Inputs from which the columns of an export are made.
pub(super) struct WantedColumns<'a> {
    pub(super) level: QueryRetrieveLevel,
    pub(super) shown: &'a [AskedColumn],
    /// Columns of several values, by the name that was asked for.
    pub(super) lists: &'a [String],
    /// Columns that stay as they are among pseudonyms.
    pub(super) plain: &'a [String],
    /// Timezone Offset From UTC, if it was asked for.
    pub(super) zone: Option<&'a AskedColumn>,
    pub(super) query: &'a qr::Query,
    pub(super) declared: &'a DeclaredSet,
}

impl RowMaker {
    pub(super) fn new(
        wanted: &WantedColumns<'_>,
        pseudonyms: Option<Pseudonyms>,
        patient: Option<&PatientColumns<AskedColumn>>,
    ) -> anyhow::Result<Self> {
        let find = |asked: &AskedColumn| match asked.column(wanted.query, wanted.declared) {
            Some(column) => Ok(column),
            None => bail!("a column has no value in the answers"),
        };
        let mut columns = Vec::new();
        for asked in wanted.shown {
            let column = find(asked)?;
            let treatment = match &pseudonyms {
                Some(_) => pseudonym_of(&column, wanted)?,
                None => Treatment::Keep,
            };
            let in_utc = (column.vr == VR::DT && pseudonyms.is_none()).then(|| column.clone());
            columns.push(export_column(column, treatment, wanted));
            columns.extend(in_utc.map(|column| ExportColumn {
                kind: ColumnType::Instant,
                is_in_utc: true,
                ..export_column(column, treatment, wanted)
            }));
        }
        let patient = patient.map(|patient| patient.find(find)).transpose()?;
        let zone = wanted.zone.map(find).transpose()?;
        Ok(Self { columns, patient, pseudonyms, zone, partition: PartitionSource::None })
    }

    /// Partitions the rows by the year or the month of the study, or by a column of text. Returns
    /// the name for the directories.
    pub(super) fn partition_by(&mut self, by: &str) -> anyhow::Result<String> {
        let position = |name: &str| self.columns.iter().position(|column| column.column.name == name);
        if let "study-year" | "study-month" = by {
            let Some(at) = position("StudyDate") else { bail!("--partition-by {by} needs the column StudyDate") };
            let with_month = by == "study-month";
            self.partition = PartitionSource::StudyDate { at, with_month };
            return Ok(by.replace('-', "_"));
        }
        let at = position(by).filter(|at| {
            self.columns.get(*at).is_some_and(|column| column.kind == ColumnType::Text && !column.is_list)
        });
        let Some(at) = at else {
            bail!("--partition-by {by}: name study-year, study-month, or a column with one text, such as Modality");
        };
        self.partition = PartitionSource::Column(at);
        Ok(snake_case(by))
    }

    /// The columns of the files.
    pub(super) fn schema(&self) -> Result<TableSchema, crate::export::Error> {
        let columns = self.columns.iter().enumerate().filter(|(at, _)| !self.is_partition(*at));
        let columns = columns.map(|(_, column)| TableColumn {
            name: snake_case(&column.column.name) + if column.is_in_utc { "_utc" } else { "" },
            kind: column.kind,
            is_list: column.is_list,
        });
        TableSchema::new(columns.collect(), self.has_raw())
    }

    fn is_partition(&self, at: usize) -> bool {
        matches!(self.partition, PartitionSource::Column(column) if column == at)
    }

    /// Values that do not fit may say more than a pseudonym may.
    fn has_raw(&self) -> bool {
        self.pseudonyms.is_none()
    }

    /// The values of a row, and the value of its partition.
    pub(super) fn values<'r>(&self, row: &'r FoundRow, values: &mut Vec<TableValue<'r>>) -> String {
        values.clear();
        let mut raw = Map::new();
        let mut partition = String::new();
        let shift = self.pseudonyms.as_ref().map_or(0, |pseudonyms| pseudonyms.shift_days(&self.patient_of(row)));
        for (at, column) in self.columns.iter().enumerate() {
            let value = self.value(column, row, shift, &mut raw);
            match (&self.partition, &value) {
                (PartitionSource::StudyDate { at: date, with_month }, TableValue::Date(days)) if *date == at => {
                    let (year, month, _) = civil(i64::from(*days));
                    partition = if *with_month { format!("{year:04}-{month:02}") } else { format!("{year:04}") };
                }
                (PartitionSource::Column(of), TableValue::Text(text)) if *of == at => partition = text.to_string(),
                _ => {}
            }
            if !self.is_partition(at) {
                values.push(value);
            }
        }
        if self.has_raw() {
            values.push(match raw.is_empty() {
                true => TableValue::Null,
                false => TableValue::Text(Value::Object(raw).to_string().into()),
            });
        }
        partition
    }

    fn value<'r>(
        &self,
        column: &ExportColumn,
        row: &'r FoundRow,
        shift: i32,
        raw: &mut Map<String, Value>,
    ) -> TableValue<'r> {
        if let (ColumnSource::Own(OwnColumn::Mtime), Some(location)) = (&column.column.source, &row.location) {
            return TableValue::Instant(location.mtime_ms);
        }
        let text = match column.column.cell(row) {
            CellValue::Number(number) => return i64::try_from(number).map_or(TableValue::Null, TableValue::Integer),
            CellValue::Path(path) => {
                if let Some(hex) = path_hex(&path) {
                    raw.insert("path_hex".into(), hex.into());
                }
                return TableValue::Text(path.to_string_lossy().into_owned().into());
            }
            CellValue::Text(text) => text,
        };
        if column.is_in_utc {
            return in_utc(column.is_list, &text, &self.zone_of(row));
        }
        let (kind, is_list) = (column.kind, column.is_list);
        let (value, fit) = match &text {
            Cow::Borrowed(text) => typed(kind, is_list, text),
            Cow::Owned(text) => {
                let (value, fit) = typed(kind, is_list, text);
                (value.into_owned(), fit)
            }
        };
        let Some(pseudonyms) = &self.pseudonyms else {
            if fit != ValueFit::Whole {
                raw.insert(snake_case(&column.column.name), text.into_owned().into());
            }
            return value;
        };
        let name = &column.column.name;
        match (column.treatment, value) {
            (Treatment::Keep, value) => value,
            (Treatment::HashUid, TableValue::Text(uid)) => TableValue::Text(pseudonyms.uid(&uid).into()),
            (Treatment::HashId, TableValue::Text(id)) => TableValue::Text(pseudonyms.id(name, &id).into()),
            (Treatment::Shift, TableValue::Date(days)) => earlier(days, shift),
            (Treatment::HashUid | Treatment::HashId | Treatment::Shift, _) => TableValue::Null,
        }
    }

    /// Timezone Offset From UTC of a row. Empty if it is not known.
    fn zone_of<'r>(&self, row: &'r FoundRow) -> Cow<'r, str> {
        match self.zone.as_ref().map(|zone| zone.cell(row)) {
            Some(CellValue::Text(zone)) => zone,
            Some(CellValue::Number(_) | CellValue::Path(_)) | None => Cow::Borrowed(""),
        }
    }

    /// Identity of the patient of a row: the ID, or name and birth date without one.
    fn patient_of(&self, row: &FoundRow) -> String {
        let Some(PatientColumns { id, others }) = &self.patient else { return String::new() };
        let text = |column: &Column| column.cell(row).into_text();
        let id = text(id);
        if id.is_empty() { format!("\\{}", others.iter().map(text).collect::<Vec<_>>().join("\\")) } else { id }
    }
}

/// Columns that tell patients apart.
pub(super) struct PatientColumns<C> {
    id: C,
    /// Columns that count for a patient without an ID.
    others: Vec<C>,
}

impl PatientColumns<AskedColumn> {
    pub(super) fn read(reading: &KeyReader<'_>) -> anyhow::Result<Self> {
        let others = ["PatientName", "PatientBirthDate"].into_iter().map(|name| reading.column(name));
        Ok(Self { id: reading.column("PatientID")?, others: others.collect::<anyhow::Result<_>>()? })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &AskedColumn> {
        std::iter::once(&self.id).chain(&self.others)
    }

    fn find(&self, find: impl Fn(&AskedColumn) -> anyhow::Result<Column>) -> anyhow::Result<PatientColumns<Column>> {
        Ok(PatientColumns { id: find(&self.id)?, others: self.others.iter().map(find).collect::<anyhow::Result<_>>()? })
    }
}

fn export_column(column: Column, treatment: Treatment, wanted: &WantedColumns<'_>) -> ExportColumn {
    let kind = match &column.source {
        ColumnSource::Own(OwnColumn::Path) => ColumnType::Text,
        ColumnSource::Own(OwnColumn::Size) => ColumnType::Integer,
        ColumnSource::Own(OwnColumn::Mtime) => ColumnType::Instant,
        ColumnSource::Value { .. } | ColumnSource::Empty => ColumnType::of(column.vr),
    };
    let goes_into_items = matches!(&column.source, ColumnSource::Value { path, .. } if !path.is_empty());
    let has_several = match Attribute::by_keyword(&column.name) {
        // A study answers for its series.
        Some(attribute) => attribute.multiplicity == Multiplicity::Many || attribute.level > wanted.level,
        None => goes_into_items || has_several_values(&column.name),
    };
    let is_list = kind != ColumnType::Json && (has_several || wanted.lists.contains(&column.name));
    ExportColumn { column, is_in_utc: false, kind, is_list, treatment }
}

/// Treatment of a column among pseudonyms.
fn pseudonym_of(column: &Column, wanted: &WantedColumns<'_>) -> anyhow::Result<Treatment> {
    if wanted.plain.contains(&column.name) {
        return Ok(Treatment::Keep);
    }
    if matches!(column.source, ColumnSource::Own(OwnColumn::Size)) {
        return Ok(Treatment::Keep);
    }
    let known = Attribute::by_keyword(&column.name).and_then(|attribute| treatment(attribute.id));
    match known {
        Some(treatment) => Ok(treatment),
        None => bail!(
            "{} may say who the patient is; hint: leave it out, or write --plain {0} to have it as it is",
            column.name
        ),
    }
}
