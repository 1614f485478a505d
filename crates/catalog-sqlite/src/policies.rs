//! Policies: roles that projects write themselves.

use cachevault_catalog::CatalogError;
use cachevault_domain::{AccessPolicy, ActionPattern, Listing, Page, ProjectId, RoleName};
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection, SqliteExecutor};

use crate::row::{RowOf, signed};
use crate::{projects, unavailable};

#[derive(FromRow)]
struct PolicyRow {
    project_id: String,
    name: String,
    actions: String,
    created_at: i64,
    updated_at: i64,
}

impl PolicyRow {
    fn policy(&self) -> Result<AccessPolicy, CatalogError> {
        let row = RowOf { table: "policies", key: &self.name };
        Ok(AccessPolicy {
            project: row.parse(&self.project_id)?,
            name: row.parse(&self.name)?,
            actions: actions(&row, Some(&self.actions))?.unwrap_or_default(),
            created_at: row.moment(self.created_at)?,
            updated_at: row.moment(self.updated_at)?,
        })
    }
}

/// The patterns in a column of a policy, where there is one.
pub(crate) fn actions(
    row: &RowOf<'_>,
    text: Option<&str>,
) -> Result<Option<Vec<ActionPattern>>, CatalogError> {
    let parse = |text: &str| text.split_whitespace().map(|word| row.parse(word)).collect();
    text.map(parse).transpose()
}

fn written(actions: &[ActionPattern]) -> String {
    actions.iter().map(ActionPattern::as_str).collect::<Vec<_>>().join(" ")
}

/// Passes where the project has this role, built in or as a policy.
pub(crate) async fn require(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    role: &RoleName,
) -> Result<(), CatalogError> {
    if role.built_in().is_some() || is_there(tx, project, role).await? {
        return Ok(());
    }
    Err(CatalogError::NotFound("role"))
}

async fn is_there(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    name: &RoleName,
) -> Result<bool, CatalogError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM policies WHERE project_id = ? AND name = ?)")
        .bind(project.as_str())
        .bind(name.as_str())
        .fetch_one(tx)
        .await
        .map_err(unavailable)
}

pub(crate) async fn insert(
    tx: &mut SqliteConnection,
    policy: &AccessPolicy,
) -> Result<(), CatalogError> {
    if !projects::is_there(tx, &policy.project).await? {
        return Err(CatalogError::NotFound("project"));
    }
    let inserted = sqlx::query(
        "INSERT INTO policies (project_id, name, actions, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(policy.project.as_str())
    .bind(policy.name.as_str())
    .bind(written(&policy.actions))
    .bind(policy.created_at.as_microsecond())
    .bind(policy.updated_at.as_microsecond())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    if inserted.rows_affected() == 0 || policy.name.built_in().is_some() {
        return Err(CatalogError::Taken("policy name"));
    }
    Ok(())
}

pub(crate) async fn find(
    executor: impl SqliteExecutor<'_>,
    project: &ProjectId,
    name: &RoleName,
) -> Result<Option<AccessPolicy>, CatalogError> {
    let row: Option<PolicyRow> =
        sqlx::query_as("SELECT * FROM policies WHERE project_id = ? AND name = ?")
            .bind(project.as_str())
            .bind(name.as_str())
            .fetch_optional(executor)
            .await
            .map_err(unavailable)?;
    row.as_ref().map(PolicyRow::policy).transpose()
}

pub(crate) async fn list(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    page: Page,
) -> Result<Listing<AccessPolicy>, CatalogError> {
    let total: i64 = sqlx::query_scalar("SELECT count(*) FROM policies WHERE project_id = ?")
        .bind(project.as_str())
        .fetch_one(&mut *tx)
        .await
        .map_err(unavailable)?;
    let rows: Vec<PolicyRow> = sqlx::query_as(
        "SELECT * FROM policies WHERE project_id = ? ORDER BY name LIMIT ? OFFSET ?",
    )
    .bind(project.as_str())
    .bind(i64::from(page.limit))
    .bind(signed(page.offset))
    .fetch_all(tx)
    .await
    .map_err(unavailable)?;
    let items = rows.iter().map(PolicyRow::policy).collect::<Result<_, _>>()?;
    Ok(Listing { items, total: total.unsigned_abs() })
}

pub(crate) async fn update(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    name: &RoleName,
    actions: &[ActionPattern],
    now: Timestamp,
) -> Result<(), CatalogError> {
    let updated = sqlx::query(
        "UPDATE policies SET actions = ?, updated_at = ? WHERE project_id = ? AND name = ?",
    )
    .bind(written(actions))
    .bind(now.as_microsecond())
    .bind(project.as_str())
    .bind(name.as_str())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    found(updated.rows_affected())
}

pub(crate) async fn remove(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    name: &RoleName,
) -> Result<(), CatalogError> {
    let in_use: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM credentials WHERE project_id = ?1 AND role = ?2)
             OR EXISTS (SELECT 1 FROM grants WHERE project_id = ?1 AND role = ?2)",
    )
    .bind(project.as_str())
    .bind(name.as_str())
    .fetch_one(&mut *tx)
    .await
    .map_err(unavailable)?;
    if in_use && is_there(tx, project, name).await? {
        return Err(CatalogError::InUse("policy"));
    }
    let removed = sqlx::query("DELETE FROM policies WHERE project_id = ? AND name = ?")
        .bind(project.as_str())
        .bind(name.as_str())
        .execute(tx)
        .await
        .map_err(unavailable)?;
    found(removed.rows_affected())
}

fn found(rows: u64) -> Result<(), CatalogError> {
    if rows == 0 { Err(CatalogError::NotFound("policy")) } else { Ok(()) }
}
