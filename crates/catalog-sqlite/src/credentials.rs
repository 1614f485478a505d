//! Access keys.

use cachevault_catalog::{CatalogError, CredentialChanges, KeyHolder, StoredCredential};
use cachevault_domain::{
    AccessKey, Credential, Listing, Note, Page, Permissions, ProjectId, RoleName, SealedSecret,
    UserRef,
};
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection, SqliteExecutor};

use crate::policies::{self, actions};
use crate::row::{RowOf, signed};
use crate::{projects, unavailable};

#[derive(FromRow)]
struct CredentialRow {
    access_key: String,
    project_id: String,
    role: String,
    user_id: Option<String>,
    user_name: Option<String>,
    description: Option<String>,
    enabled: bool,
    administers_service: bool,
    created_at: i64,
    expires_at: Option<i64>,
}

impl CredentialRow {
    fn credential(&self) -> Result<Credential, CatalogError> {
        let row = RowOf { table: "credentials", key: &self.access_key };
        let user = match (&self.user_id, &self.user_name) {
            (Some(id), Some(name)) => Some(UserRef { id: row.parse(id)?, name: row.parse(name)? }),
            _ => None,
        };
        Ok(Credential {
            access_key: row.parse(&self.access_key)?,
            project: row.parse(&self.project_id)?,
            role: row.parse(&self.role)?,
            user,
            description: row.parse_if(self.description.as_deref())?,
            enabled: self.enabled,
            administers_service: self.administers_service,
            created_at: row.moment(self.created_at)?,
            expires_at: row.moment_if(self.expires_at)?,
        })
    }
}

#[derive(FromRow)]
struct HolderRow {
    #[sqlx(flatten)]
    credential: CredentialRow,
    secret: Vec<u8>,
    role_actions: Option<String>,
    project_enabled: bool,
    user_enabled: Option<bool>,
    user_role: Option<String>,
    user_role_actions: Option<String>,
}

impl HolderRow {
    fn holder(self) -> Result<KeyHolder, CatalogError> {
        let credential = self.credential.credential()?;
        let row = RowOf { table: "credentials", key: &self.credential.access_key };
        let own = credential.role.permissions(actions(&row, self.role_actions.as_deref())?);
        let (permissions, user_may) = match (&credential.user, &self.user_role) {
            (None, _) => (own, true),
            (Some(_), None) => (Permissions::default(), false),
            (Some(_), Some(role)) => {
                let role: RoleName = row.parse(role)?;
                let of_user = role.permissions(actions(&row, self.user_role_actions.as_deref())?);
                (own.within(of_user), self.user_enabled == Some(true))
            }
        };
        let stored = StoredCredential { credential, secret: SealedSecret(self.secret) };
        Ok(KeyHolder { stored, project_enabled: self.project_enabled, user_may, permissions })
    }
}

pub(crate) async fn find(
    executor: impl SqliteExecutor<'_>,
    access_key: &AccessKey,
) -> Result<Option<KeyHolder>, CatalogError> {
    let row: Option<HolderRow> = sqlx::query_as(
        "SELECT c.access_key, c.project_id, c.role, c.user_id, u.name AS user_name, c.description,
             c.enabled, c.administers_service, c.created_at, c.expires_at, c.secret,
             own.actions AS role_actions, p.enabled AS project_enabled, u.enabled AS user_enabled,
             g.role AS user_role, theirs.actions AS user_role_actions
         FROM credentials c
         JOIN projects p ON p.id = c.project_id
         LEFT JOIN policies own ON own.project_id = c.project_id AND own.name = c.role
         LEFT JOIN users u ON u.id = c.user_id
         LEFT JOIN grants g ON g.user_id = c.user_id AND g.project_id = c.project_id
         LEFT JOIN policies theirs ON theirs.project_id = g.project_id AND theirs.name = g.role
         WHERE c.access_key = ?",
    )
    .bind(access_key.as_str())
    .fetch_optional(executor)
    .await
    .map_err(unavailable)?;
    row.map(HolderRow::holder).transpose()
}

pub(crate) async fn list(
    tx: &mut SqliteConnection,
    project: &ProjectId,
    page: Page,
) -> Result<Listing<Credential>, CatalogError> {
    let total: i64 = sqlx::query_scalar("SELECT count(*) FROM credentials WHERE project_id = ?")
        .bind(project.as_str())
        .fetch_one(&mut *tx)
        .await
        .map_err(unavailable)?;
    let rows: Vec<CredentialRow> = sqlx::query_as(
        "SELECT c.access_key, c.project_id, c.role, c.user_id, u.name AS user_name, c.description,
             c.enabled, c.administers_service, c.created_at, c.expires_at
         FROM credentials c LEFT JOIN users u ON u.id = c.user_id
         WHERE c.project_id = ? ORDER BY c.created_at, c.rowid LIMIT ? OFFSET ?",
    )
    .bind(project.as_str())
    .bind(i64::from(page.limit))
    .bind(signed(page.offset))
    .fetch_all(tx)
    .await
    .map_err(unavailable)?;
    let items = rows.iter().map(CredentialRow::credential).collect::<Result<_, _>>()?;
    Ok(Listing { items, total: total.unsigned_abs() })
}

/// Adds a credential whose project, role and user's grant are there.
pub(crate) async fn insert(
    tx: &mut SqliteConnection,
    stored: &StoredCredential,
) -> Result<(), CatalogError> {
    let StoredCredential { credential, secret } = stored;
    if !projects::is_there(tx, &credential.project).await? {
        return Err(CatalogError::NotFound("project"));
    }
    policies::require(tx, &credential.project, &credential.role).await?;
    if let Some(user) = &credential.user {
        let granted: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM grants WHERE user_id = ? AND project_id = ?)",
        )
        .bind(user.id.as_str())
        .bind(credential.project.as_str())
        .fetch_one(&mut *tx)
        .await
        .map_err(unavailable)?;
        if !granted {
            return Err(CatalogError::NotFound("user"));
        }
    }
    let inserted = sqlx::query(
        "INSERT INTO credentials (access_key, project_id, secret, role, user_id, description,
             enabled, administers_service, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(credential.access_key.as_str())
    .bind(credential.project.as_str())
    .bind(&secret.0)
    .bind(credential.role.as_str())
    .bind(credential.user.as_ref().map(|user| user.id.as_str()))
    .bind(credential.description.as_ref().map(Note::as_str))
    .bind(credential.enabled)
    .bind(credential.administers_service)
    .bind(credential.created_at.as_microsecond())
    .bind(credential.expires_at.map(Timestamp::as_microsecond))
    .execute(tx)
    .await
    .map_err(unavailable)?;
    if inserted.rows_affected() == 0 {
        return Err(CatalogError::Taken("access key"));
    }
    Ok(())
}

pub(crate) async fn update(
    tx: &mut SqliteConnection,
    access_key: &AccessKey,
    changes: &CredentialChanges,
) -> Result<(), CatalogError> {
    if let Some(role) = &changes.role {
        let project = project_of(tx, access_key).await?;
        policies::require(tx, &project, role).await?;
    }
    let description = changes.description.as_ref();
    let updated = sqlx::query(
        "UPDATE credentials SET role = coalesce(?2, role), enabled = coalesce(?3, enabled),
             description = CASE WHEN ?4 THEN ?5 ELSE description END,
             expires_at = CASE WHEN ?6 THEN ?7 ELSE expires_at END
         WHERE access_key = ?1",
    )
    .bind(access_key.as_str())
    .bind(changes.role.as_ref().map(RoleName::as_str))
    .bind(changes.enabled)
    .bind(description.is_some())
    .bind(description.and_then(Option::as_ref).map(Note::as_str))
    .bind(changes.expires_at.is_some())
    .bind(changes.expires_at.flatten().map(Timestamp::as_microsecond))
    .execute(tx)
    .await
    .map_err(unavailable)?;
    found(updated.rows_affected())
}

async fn project_of(
    tx: &mut SqliteConnection,
    access_key: &AccessKey,
) -> Result<ProjectId, CatalogError> {
    let project: Option<String> =
        sqlx::query_scalar("SELECT project_id FROM credentials WHERE access_key = ?")
            .bind(access_key.as_str())
            .fetch_optional(tx)
            .await
            .map_err(unavailable)?;
    let project = project.ok_or(CatalogError::NotFound("credential"))?;
    RowOf { table: "credentials", key: access_key.as_str() }.parse(&project)
}

/// Lets a credential end at this moment, unless it ends before.
pub(crate) async fn end(
    tx: &mut SqliteConnection,
    access_key: &AccessKey,
    at: Option<Timestamp>,
) -> Result<(), CatalogError> {
    let updated = sqlx::query(
        "UPDATE credentials
         SET expires_at = coalesce(min(expires_at, ?2), expires_at, ?2) WHERE access_key = ?1",
    )
    .bind(access_key.as_str())
    .bind(at.map(Timestamp::as_microsecond))
    .execute(tx)
    .await
    .map_err(unavailable)?;
    found(updated.rows_affected())
}

pub(crate) async fn remove(
    tx: &mut SqliteConnection,
    access_key: &AccessKey,
) -> Result<(), CatalogError> {
    let removed = sqlx::query("DELETE FROM credentials WHERE access_key = ?")
        .bind(access_key.as_str())
        .execute(tx)
        .await
        .map_err(unavailable)?;
    found(removed.rows_affected())
}

fn found(rows: u64) -> Result<(), CatalogError> {
    if rows == 0 { Err(CatalogError::NotFound("credential")) } else { Ok(()) }
}
