//! Columns of a table, and the trait of those that write one.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::Error;
use super::value::{ColumnType, TableValue};

/// Name of the last column. It holds a JSON object with the values that do not fit their columns.
pub const RAW_COLUMN: &str = "_raw";

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumn {
    /// Its name: a keyword in snake case.
    pub name: String,
    /// The type of its values.
    pub kind: ColumnType,
    /// Whether each of its values is a list.
    pub is_list: bool,
}

/// The columns of a table in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    columns: Vec<TableColumn>,
}

impl TableSchema {
    /// Makes a schema of columns with different names. [`RAW_COLUMN`] is added at the end if some
    /// value may not fit.
    ///
    /// # Errors
    /// [`Error::SameName`].
    pub fn new(mut columns: Vec<TableColumn>, has_raw: bool) -> Result<Self, Error> {
        if has_raw {
            columns.push(TableColumn { name: RAW_COLUMN.to_owned(), kind: ColumnType::Json, is_list: false });
        }
        let mut names = BTreeSet::new();
        for column in &columns {
            // Programs that read tables ignore case.
            if !names.insert(column.name.to_ascii_lowercase()) {
                return Err(Error::SameName(column.name.clone()));
            }
        }
        Ok(Self { columns })
    }

    /// The columns.
    #[must_use]
    pub fn columns(&self) -> &[TableColumn] {
        &self.columns
    }
}

/// Writes the rows of a table. The three formats implement it.
pub trait TableWriter {
    /// Writes one row, with a value for each column.
    ///
    /// # Errors
    /// If the destination cannot be written.
    fn row(&mut self, values: &[TableValue<'_>]) -> Result<(), Error>;

    /// Ends the table, and gives it its final name.
    ///
    /// # Errors
    /// If the destination cannot be written.
    fn finish(self: Box<Self>) -> Result<(), Error>;
}

/// The name of a column in snake case, as in the views of the index: `SOPInstanceUID` becomes
/// `sop_instance_uid`, and `ProcedureCodeSequence.CodeValue` becomes
/// `procedure_code_sequence_code_value`.
#[must_use]
pub fn snake_case(keyword: &str) -> String {
    let plural: Cow<'_, str> = keyword.replace("IDs", "Ids").replace("UIDs", "Uids").into();
    let letters: Vec<char> = plural.chars().collect();
    let mut name = String::with_capacity(letters.len() + 8);
    for (at, &letter) in letters.iter().enumerate() {
        if !letter.is_alphanumeric() {
            if !name.ends_with('_') {
                name.push('_');
            }
            continue;
        }
        let before = at.checked_sub(1).and_then(|before| letters.get(before));
        let after = letters.get(at + 1);
        let begins_word = letter.is_uppercase()
            && (before.is_some_and(|before| before.is_lowercase() || before.is_ascii_digit())
                || (before.is_some_and(|before| before.is_uppercase())
                    && after.is_some_and(|after| after.is_lowercase())));
        if begins_word && !name.ends_with('_') {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attribute::ATTRIBUTES;

    #[test]
    fn names_are_those_of_the_views() {
        for attribute in ATTRIBUTES {
            assert_eq!(snake_case(attribute.keyword), attribute.column, "{}", attribute.keyword);
        }
        assert_eq!(snake_case("ProcedureCodeSequence.CodeValue"), "procedure_code_sequence_code_value");
        assert_eq!(snake_case("0009,1001"), "0009_1001");
    }

    #[test]
    fn two_columns_of_one_name_are_refused() {
        let column = |name: &str| TableColumn { name: name.into(), kind: ColumnType::Text, is_list: false };
        assert!(TableSchema::new(vec![column("a"), column("A")], false).is_err());
        assert!(TableSchema::new(vec![column("_raw")], true).is_err());
        assert_eq!(TableSchema::new(vec![column("a")], true).unwrap().columns().len(), 2);
    }
}
