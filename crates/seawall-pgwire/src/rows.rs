use std::ops::Range;
use std::sync::Arc;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, RowDescriptionBody};

use seawall_core::printable;

use crate::{FromText, PgError};

/// What one statement of a query string returned.
#[derive(Debug, Clone, Default)]
pub struct ResultSet {
    columns: Arc<[String]>,
    rows: Vec<Row>,
    command_tag: String,
}

impl ResultSet {
    pub(crate) fn new(columns: Arc<[String]>) -> Self {
        Self { columns, rows: Vec::new(), command_tag: String::new() }
    }

    pub(crate) fn columns_shared(&self) -> Arc<[String]> {
        Arc::clone(&self.columns)
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn complete(mut self, command_tag: &str) -> Self {
        self.command_tag = printable(command_tag);
        self
    }

    /// What the set costs in memory beside its rows and columns.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.command_tag.len()
    }

    /// The names of the columns; none if the statement returns no rows.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The rows.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows, owned.
    #[must_use]
    pub fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    /// What the server calls the statement, such as `SELECT 1` or `CREATE TABLE`.
    #[must_use]
    pub fn command_tag(&self) -> &str {
        &self.command_tag
    }
}

/// A row of text values.
#[derive(Debug, Clone)]
pub struct Row {
    columns: Arc<[String]>,
    /// A copy: a part of what was read would keep the whole of it, and what surrounds a row is not
    /// counted.
    body: Box<[u8]>,
    values: Vec<Option<Range<usize>>>,
}

impl Row {
    /// The row must have as many values as there are columns.
    pub(crate) fn parse(columns: Arc<[String]>, body: &DataRowBody) -> Result<Self, PgError> {
        let values: Vec<_> = body.ranges().collect()?;
        if values.len() != columns.len() {
            return Err(PgError::Protocol(format!(
                "a row of {} values for {} columns",
                values.len(),
                columns.len()
            )));
        }
        Ok(Self { columns, body: body.buffer().into(), values })
    }

    /// What the row costs in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.body.len() + size_of::<Self>() + self.values.len() * size_of::<Option<Range<usize>>>()
    }

    /// The names of the columns.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// A value as the server sent it; `None` is NULL. Not every text is UTF-8 in a database whose
    /// encoding is `SQL_ASCII`.
    ///
    /// # Errors
    /// [`PgError::Value`] if there is no such column.
    pub fn bytes(&self, column: &str) -> Result<Option<&[u8]>, PgError> {
        let index = self.columns.iter().position(|name| name == column);
        let value = index
            .and_then(|index| self.values.get(index))
            .ok_or_else(|| PgError::Value(format!("there is no column \"{}\"", shown(column))))?;
        Ok(value.as_ref().and_then(|range| self.body.get(range.clone())))
    }

    /// A value as text, with every character the server sent; `None` is NULL. What is shown to
    /// people is got as a `String` instead.
    ///
    /// # Errors
    /// [`PgError::Value`] if there is no such column or the value is not UTF-8.
    pub fn text(&self, column: &str) -> Result<Option<&str>, PgError> {
        self.bytes(column)?
            .map(|bytes| {
                std::str::from_utf8(bytes).map_err(|_| {
                    PgError::Value(format!("column \"{}\" is not UTF-8", shown(column)))
                })
            })
            .transpose()
    }

    /// A value as `T`; NULL fits only an `Option`.
    ///
    /// # Errors
    /// [`PgError::Value`]
    pub fn get<T: FromText>(&self, column: &str) -> Result<T, PgError> {
        let text = self.text(column)?;
        T::from_text(text).map_err(|expected| {
            let found =
                text.map_or_else(|| "NULL".to_owned(), |text| format!("\"{}\"", shown(text)));
            PgError::Value(format!("column \"{}\" is {found}, expected {expected}", shown(column)))
        })
    }
}

/// The beginning of a text, enough to recognise it.
fn shown(text: &str) -> String {
    printable(&text.chars().take(80).collect::<String>())
}

/// The names of a `RowDescription`.
pub(crate) fn column_names(body: &RowDescriptionBody) -> Result<Arc<[String]>, PgError> {
    let names: Vec<String> = body.fields().map(|field| Ok(field.name().to_owned())).collect()?;
    Ok(names.into())
}
