//! Between columns and the types of `domain`.

use std::fmt::Display;
use std::str::FromStr;

use cachevault_catalog::CatalogError;
use cachevault_domain::{BackupId, Failure, FailureCode, ProjectId};
use jiff::Timestamp;

/// Names the row that is being decoded, for the error when it cannot be.
pub(crate) struct RowOf<'a> {
    pub(crate) table: &'static str,
    pub(crate) key: &'a str,
}

impl RowOf<'_> {
    pub(crate) fn corrupt(&self, detail: impl Display) -> CatalogError {
        CatalogError::Corrupt {
            table: self.table,
            row: self.key.to_owned(),
            detail: detail.to_string(),
        }
    }

    pub(crate) fn parse<T: FromStr<Err: Display>>(&self, text: &str) -> Result<T, CatalogError> {
        text.parse().map_err(|e| self.corrupt(e))
    }

    pub(crate) fn parse_if<T: FromStr<Err: Display>>(
        &self,
        text: Option<&str>,
    ) -> Result<Option<T>, CatalogError> {
        text.map(|text| self.parse(text)).transpose()
    }

    /// One of `all`, by its name.
    pub(crate) fn named<T: Copy>(
        &self,
        all: &[T],
        name: fn(T) -> &'static str,
        text: &str,
    ) -> Result<T, CatalogError> {
        all.iter()
            .copied()
            .find(|value| name(*value) == text)
            .ok_or_else(|| self.corrupt(format!("unknown word `{text}`")))
    }

    pub(crate) fn number<T: TryFrom<i64, Error: Display>>(
        &self,
        number: i64,
    ) -> Result<T, CatalogError> {
        number.try_into().map_err(|e| self.corrupt(e))
    }

    pub(crate) fn number_if<T: TryFrom<i64, Error: Display>>(
        &self,
        number: Option<i64>,
    ) -> Result<Option<T>, CatalogError> {
        number.map(|number| self.number(number)).transpose()
    }

    pub(crate) fn failure(
        &self,
        code: Option<&str>,
        reason: Option<String>,
    ) -> Result<Option<Failure>, CatalogError> {
        let Some(code) = code else { return Ok(None) };
        let code = self.named(&FailureCode::ALL, FailureCode::as_str, code)?;
        Ok(Some(Failure { code, reason: reason.unwrap_or_default() }))
    }

    pub(crate) fn moment(&self, micros: i64) -> Result<Timestamp, CatalogError> {
        Timestamp::from_microsecond(micros).map_err(|e| self.corrupt(e))
    }

    pub(crate) fn moment_if(&self, micros: Option<i64>) -> Result<Option<Timestamp>, CatalogError> {
        micros.map(|micros| self.moment(micros)).transpose()
    }
}

/// SQLite's integers are signed; nothing that we count comes near their end.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The ids in a row of a project and a backup of it.
pub(crate) fn owned_backup(
    (project, backup): &(String, String),
) -> Result<(ProjectId, BackupId), CatalogError> {
    let row = RowOf { table: "backups", key: backup };
    Ok((row.parse(project)?, row.parse(backup)?))
}
