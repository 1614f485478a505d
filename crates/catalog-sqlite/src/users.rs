//! Users and what they have in projects.

use async_trait::async_trait;
use cachevault_catalog::{
    CatalogError, FoundToken, IdentityCatalog, PasswordHash, UserChanges, UserKey,
};
use cachevault_domain::{
    AccessPolicy, ActionPattern, Grant, Listing, Page, ProjectId, RoleName, Token, TokenHash, User,
    UserId, UserName,
};
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection};

use crate::policies::{self, actions};
use crate::projects::{self, ProjectRow};
use crate::row::{RowOf, signed};
use crate::{SqliteCatalog, tokens, unavailable};

/// A row of `users`.
#[derive(FromRow)]
pub(crate) struct UserRow {
    id: String,
    name: String,
    password: String,
    enabled: bool,
    administers_service: bool,
    created_at: i64,
}

impl UserRow {
    pub(crate) fn user(self) -> Result<(User, PasswordHash), CatalogError> {
        let row = RowOf { table: "users", key: &self.id };
        let user = User {
            id: row.parse(&self.id)?,
            name: row.parse(&self.name)?,
            enabled: self.enabled,
            administers_service: self.administers_service,
            created_at: row.moment(self.created_at)?,
        };
        Ok((user, PasswordHash(self.password)))
    }
}

#[derive(FromRow)]
struct GrantRow {
    #[sqlx(flatten)]
    project: ProjectRow,
    role: String,
    actions: Option<String>,
}

impl GrantRow {
    fn grant(&self) -> Result<Grant, CatalogError> {
        let project = self.project.project()?;
        let row = RowOf { table: "grants", key: project.id.as_str() };
        let role: RoleName = row.parse(&self.role)?;
        let permissions = role.permissions(actions(&row, self.actions.as_deref())?);
        Ok(Grant { project, role, permissions })
    }
}

#[async_trait]
impl IdentityCatalog for SqliteCatalog {
    async fn create_user(&self, user: &User, password: &PasswordHash) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        insert(&mut tx, user, password).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn find_user(&self, key: &UserKey) -> Result<Option<(User, PasswordHash)>, CatalogError> {
        let query = match key {
            UserKey::Id(id) => {
                sqlx::query_as("SELECT * FROM users WHERE id = ?").bind(id.as_str().to_owned())
            }
            UserKey::Name(name) => {
                sqlx::query_as("SELECT * FROM users WHERE name = ?").bind(name.as_str().to_owned())
            }
        };
        let row: Option<UserRow> =
            query.fetch_optional(&self.readers).await.map_err(unavailable)?;
        row.map(UserRow::user).transpose()
    }

    async fn list_users(&self, page: Page) -> Result<Listing<User>, CatalogError> {
        let mut tx = self.read().await?;
        list(&mut tx, page).await
    }

    async fn update_user(&self, id: &UserId, changes: &UserChanges) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        update(&mut tx, id, changes).await?;
        if changes.password.is_some() || changes.enabled == Some(false) {
            tokens_end(&mut tx, id, None).await?;
        }
        tx.commit().await.map_err(unavailable)
    }

    async fn remove_user(&self, id: &UserId) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        // Grants, tokens and credentials go with it.
        let removed = sqlx::query("DELETE FROM users WHERE id = ?")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        if removed.rows_affected() == 0 {
            return Err(CatalogError::NotFound("user"));
        }
        tx.commit().await.map_err(unavailable)
    }

    async fn grants_of(&self, user: &UserId) -> Result<Vec<Grant>, CatalogError> {
        let mut tx = self.read().await?;
        grants(&mut tx, user, None).await
    }

    async fn set_grant(
        &self,
        user: &UserId,
        project: &ProjectId,
        role: &RoleName,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        grant(&mut tx, user, project, role).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn remove_grant(&self, user: &UserId, project: &ProjectId) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        let removed = sqlx::query("DELETE FROM grants WHERE user_id = ? AND project_id = ?")
            .bind(user.as_str())
            .bind(project.as_str())
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        if removed.rows_affected() == 0 {
            return Err(CatalogError::NotFound("grant"));
        }
        tokens_end(&mut tx, user, Some(project)).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn create_policy(&self, policy: &AccessPolicy) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        policies::insert(&mut tx, policy).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn find_policy(
        &self,
        project: &ProjectId,
        name: &RoleName,
    ) -> Result<Option<AccessPolicy>, CatalogError> {
        policies::find(&self.readers, project, name).await
    }

    async fn list_policies(
        &self,
        project: &ProjectId,
        page: Page,
    ) -> Result<Listing<AccessPolicy>, CatalogError> {
        let mut tx = self.read().await?;
        policies::list(&mut tx, project, page).await
    }

    async fn update_policy(
        &self,
        project: &ProjectId,
        name: &RoleName,
        actions: &[ActionPattern],
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        policies::update(&mut tx, project, name, actions, now).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn remove_policy(
        &self,
        project: &ProjectId,
        name: &RoleName,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        policies::remove(&mut tx, project, name).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn add_token(
        &self,
        token: &Token,
        password: &PasswordHash,
        parent: Option<&TokenHash>,
        forget_before: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        tokens::insert(&mut tx, token, password, parent, forget_before).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn find_token(&self, hash: &TokenHash) -> Result<Option<FoundToken>, CatalogError> {
        let mut tx = self.read().await?;
        tokens::find(&mut tx, hash).await
    }

    async fn revoke_token(&self, hash: &TokenHash) -> Result<bool, CatalogError> {
        let mut tx = self.write().await?;
        let revoked = tokens::revoke(&mut tx, hash).await?;
        tx.commit().await.map_err(unavailable)?;
        Ok(revoked)
    }
}

async fn insert(
    tx: &mut SqliteConnection,
    user: &User,
    password: &PasswordHash,
) -> Result<(), CatalogError> {
    if is_there(tx, &user.id).await? {
        return Err(CatalogError::Taken("user id"));
    }
    let inserted = sqlx::query(
        "INSERT INTO users (id, name, password, enabled, administers_service, created_at)
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(user.id.as_str())
    .bind(user.name.as_str())
    .bind(&password.0)
    .bind(user.enabled)
    .bind(user.administers_service)
    .bind(user.created_at.as_microsecond())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    if inserted.rows_affected() == 0 { Err(CatalogError::Taken("user name")) } else { Ok(()) }
}

async fn list(tx: &mut SqliteConnection, page: Page) -> Result<Listing<User>, CatalogError> {
    let total: i64 = sqlx::query_scalar("SELECT count(*) FROM users")
        .fetch_one(&mut *tx)
        .await
        .map_err(unavailable)?;
    let rows: Vec<UserRow> = sqlx::query_as("SELECT * FROM users ORDER BY name LIMIT ? OFFSET ?")
        .bind(i64::from(page.limit))
        .bind(signed(page.offset))
        .fetch_all(tx)
        .await
        .map_err(unavailable)?;
    let items =
        rows.into_iter().map(|row| row.user().map(|(user, _)| user)).collect::<Result<_, _>>()?;
    Ok(Listing { items, total: total.unsigned_abs() })
}

async fn update(
    tx: &mut SqliteConnection,
    id: &UserId,
    changes: &UserChanges,
) -> Result<(), CatalogError> {
    if !is_there(tx, id).await? {
        return Err(CatalogError::NotFound("user"));
    }
    let updated = sqlx::query(
        "UPDATE OR IGNORE users SET name = coalesce(?2, name), password = coalesce(?3, password),
             enabled = coalesce(?4, enabled), administers_service = coalesce(?5, administers_service)
         WHERE id = ?1",
    )
    .bind(id.as_str())
    .bind(changes.name.as_ref().map(UserName::as_str))
    .bind(changes.password.as_ref().map(|password| password.0.as_str()))
    .bind(changes.enabled)
    .bind(changes.administers_service)
    .execute(tx)
    .await
    .map_err(unavailable)?;
    if updated.rows_affected() == 0 { Err(CatalogError::Taken("user name")) } else { Ok(()) }
}

async fn grant(
    tx: &mut SqliteConnection,
    user: &UserId,
    project: &ProjectId,
    role: &RoleName,
) -> Result<(), CatalogError> {
    if !is_there(tx, user).await? {
        return Err(CatalogError::NotFound("user"));
    }
    if !projects::is_there(tx, project).await? {
        return Err(CatalogError::NotFound("project"));
    }
    policies::require(tx, project, role).await?;
    sqlx::query(
        "INSERT INTO grants (user_id, project_id, role) VALUES (?, ?, ?)
         ON CONFLICT (user_id, project_id) DO UPDATE SET role = excluded.role",
    )
    .bind(user.as_str())
    .bind(project.as_str())
    .bind(role.as_str())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(())
}

/// What a user has in all projects, or in one.
pub(crate) async fn grants(
    tx: &mut SqliteConnection,
    user: &UserId,
    project: Option<&ProjectId>,
) -> Result<Vec<Grant>, CatalogError> {
    let rows: Vec<GrantRow> = sqlx::query_as(
        "SELECT p.id, p.name, p.enabled, p.created_at, g.role, policy.actions
         FROM grants g JOIN projects p ON p.id = g.project_id
         LEFT JOIN policies policy ON policy.project_id = g.project_id AND policy.name = g.role
         WHERE g.user_id = ?1 AND (?2 IS NULL OR g.project_id = ?2) ORDER BY p.name",
    )
    .bind(user.as_str())
    .bind(project.map(ProjectId::as_str))
    .fetch_all(tx)
    .await
    .map_err(unavailable)?;
    rows.iter().map(GrantRow::grant).collect()
}

/// Removes the tokens of a user, all or those for one project.
async fn tokens_end(
    tx: &mut SqliteConnection,
    user: &UserId,
    project: Option<&ProjectId>,
) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM tokens WHERE user_id = ?1 AND (?2 IS NULL OR project_id = ?2)")
        .bind(user.as_str())
        .bind(project.map(ProjectId::as_str))
        .execute(tx)
        .await
        .map_err(unavailable)?;
    Ok(())
}

async fn is_there(tx: &mut SqliteConnection, user: &UserId) -> Result<bool, CatalogError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM users WHERE id = ?)")
        .bind(user.as_str())
        .fetch_one(tx)
        .await
        .map_err(unavailable)
}
