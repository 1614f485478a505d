//! Pages of the records of one instance.

use cachevault_catalog::CatalogError;
use cachevault_domain::{InstanceId, Listing, Page, ProjectId};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, QueryBuilder, Sqlite};

use crate::row::signed;
use crate::{SqliteCatalog, unavailable};

/// Which records of an instance are wanted.
pub(crate) struct RecordsOf<'a> {
    /// The table that counts.
    pub(crate) table: &'static str,
    /// Selects the columns from the table and what is joined with it.
    pub(crate) select: &'static str,
    pub(crate) project: &'a ProjectId,
    pub(crate) instance: InstanceId,
    pub(crate) created_from: Option<Timestamp>,
    pub(crate) created_to: Option<Timestamp>,
}

impl RecordsOf<'_> {
    fn narrow(&self, query: &mut QueryBuilder<Sqlite>) {
        let Self { table, .. } = self;
        query.push(format_args!(" WHERE {table}.instance_id = "));
        query.push_bind(self.instance.to_string());
        query.push(format_args!(" AND {table}.project_id = "));
        query.push_bind(self.project.as_str().to_owned());
        if let Some(from) = self.created_from {
            query.push(format_args!(" AND {table}.created_at >= "));
            query.push_bind(from.as_microsecond());
        }
        if let Some(to) = self.created_to {
            query.push(format_args!(" AND {table}.created_at <= "));
            query.push_bind(to.as_microsecond());
        }
    }
}

impl SqliteCatalog {
    /// A page of the wanted records, newest first, and how many there are in all, both seen at one
    /// moment. `also` narrows further.
    pub(crate) async fn newest_first<R, T>(
        &self,
        wanted: &RecordsOf<'_>,
        also: impl Fn(&mut QueryBuilder<Sqlite>) + Send,
        page: Page,
    ) -> Result<Listing<T>, CatalogError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
        T: TryFrom<R, Error = CatalogError>,
    {
        let table = wanted.table;
        let mut count = QueryBuilder::new(format!("SELECT count(*) FROM {table}"));
        let mut select = QueryBuilder::new(wanted.select);
        for query in [&mut count, &mut select] {
            wanted.narrow(query);
            also(query);
        }
        select.push(format_args!(" ORDER BY {table}.created_at DESC, {table}.seq DESC LIMIT "));
        select.push_bind(i64::from(page.limit)).push(" OFFSET ").push_bind(signed(page.offset));
        let mut tx = self.read().await?;
        let total: i64 =
            count.build_query_scalar().fetch_one(&mut *tx).await.map_err(unavailable)?;
        let rows: Vec<R> =
            select.build_query_as().fetch_all(&mut *tx).await.map_err(unavailable)?;
        let items = rows.into_iter().map(T::try_from).collect::<Result<_, _>>()?;
        Ok(Listing { items, total: total.unsigned_abs() })
    }
}
