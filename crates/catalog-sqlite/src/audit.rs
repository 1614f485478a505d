use async_trait::async_trait;
use cachevault_catalog::{AuditCatalog, CatalogError};
use cachevault_domain::{
    AUDIT_TEXT_CHARS_MAX, AuditFilter, AuditRecord, AuditResult, NewAuditRecord, ProjectId,
    RequestId,
};
use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite};

use crate::row::RowOf;
use crate::{SqliteCatalog, unavailable};

#[derive(sqlx::FromRow)]
struct AuditRow {
    request_id: String,
    project_id: Option<String>,
    access_key: Option<String>,
    user_name: Option<String>,
    address: Option<String>,
    operation: String,
    resource: String,
    at: i64,
    status: Option<i64>,
    error: Option<String>,
    answered_at: Option<i64>,
    bytes: Option<i64>,
    times: i64,
}

impl TryFrom<AuditRow> for AuditRecord {
    type Error = CatalogError;

    fn try_from(found: AuditRow) -> Result<Self, CatalogError> {
        let row = RowOf { table: "audit", key: &found.request_id };
        let result = match (found.status, found.answered_at) {
            (Some(status), Some(at)) => Some(AuditResult {
                status: row.number(status)?,
                error: found.error,
                bytes: found.bytes.map(|bytes| row.number(bytes)).transpose()?,
                times: row.number(found.times)?,
                at: row.moment(at)?,
            }),
            _ => None,
        };
        Ok(Self {
            call: NewAuditRecord {
                request: row.parse(&found.request_id)?,
                project: row.parse_if(found.project_id.as_deref())?,
                access_key: row.parse_if(found.access_key.as_deref())?,
                user: found.user_name,
                address: row.parse_if(found.address.as_deref())?,
                operation: found.operation,
                resource: found.resource,
                at: row.moment(found.at)?,
            },
            result,
        })
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(AUDIT_TEXT_CHARS_MAX).collect()
}

#[async_trait]
impl AuditCatalog for SqliteCatalog {
    async fn begin_audit(&self, call: &NewAuditRecord) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO audit (request_id, project_id, access_key, user_name, address, operation,
                 resource, at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(call.request.as_str())
        .bind(call.project.as_ref().map(ProjectId::as_str))
        .bind(call.access_key.as_ref().map(|key| key.as_str()))
        .bind(call.user.as_deref())
        .bind(call.address.map(|address| address.to_string()))
        .bind(shortened(&call.operation))
        .bind(shortened(&call.resource))
        .bind(call.at.as_microsecond())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    async fn end_audit(
        &self,
        request: &RequestId,
        result: &AuditResult,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "UPDATE audit SET status = ?, error = ?, bytes = ?, times = ?, answered_at = ?
             WHERE request_id = ? AND status IS NULL",
        )
        .bind(i64::from(result.status))
        .bind(result.error.as_deref())
        .bind(result.bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
        .bind(i64::from(result.times))
        .bind(result.at.as_microsecond())
        .bind(request.as_str())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    async fn list_audit(
        &self,
        project: &ProjectId,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, CatalogError> {
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("SELECT * FROM audit WHERE (project_id = ");
        query.push_bind(project.as_str());
        if filter.with_service {
            query.push(" OR project_id IS NULL");
        }
        query.push(")");
        if let Some(from) = filter.from {
            query.push(" AND at >= ").push_bind(from.as_microsecond());
        }
        if let Some(to) = filter.to {
            query.push(" AND at <= ").push_bind(to.as_microsecond());
        }
        let (behind, order) = if filter.oldest_first { (">", "ASC") } else { ("<", "DESC") };
        if let Some(after) = &filter.after {
            let seq = self.audit_seq(project, filter.with_service, after).await?;
            query.push(format_args!(" AND seq {behind} ")).push_bind(seq);
        }
        query.push(format_args!(" ORDER BY seq {order} LIMIT ")).push_bind(i64::from(limit));
        let rows: Vec<AuditRow> =
            query.build_query_as().fetch_all(&self.readers).await.map_err(unavailable)?;
        rows.into_iter().map(AuditRecord::try_from).collect()
    }

    async fn drop_audit(&self, before: Timestamp) -> Result<u64, CatalogError> {
        let mut tx = self.write().await?;
        let dropped = sqlx::query("DELETE FROM audit WHERE at < ?")
            .bind(before.as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)?;
        Ok(dropped.rows_affected())
    }
}

impl SqliteCatalog {
    async fn audit_seq(
        &self,
        project: &ProjectId,
        with_service: bool,
        request: &RequestId,
    ) -> Result<i64, CatalogError> {
        let found: Option<i64> =
            sqlx::query_scalar("SELECT seq FROM audit WHERE (project_id = ? OR (? AND project_id IS NULL)) AND request_id = ?")
                .bind(project.as_str())
                .bind(with_service)
                .bind(request.as_str())
                .fetch_optional(&self.readers)
                .await
                .map_err(unavailable)?;
        found.ok_or(CatalogError::NotFound("audit record"))
    }
}
