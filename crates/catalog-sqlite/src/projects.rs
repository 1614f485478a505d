use async_trait::async_trait;
use cachevault_catalog::{
    CatalogError, CredentialChanges, KeyHolder, ProjectCatalog, ProjectChanges, ProjectFilter,
    StoredCredential,
};
use cachevault_domain::{AccessKey, Credential, Listing, Page, Project, ProjectId, ProjectName};
use jiff::Timestamp;
use sqlx::{FromRow, QueryBuilder, SqliteConnection};

use crate::row::{RowOf, signed};
use crate::{SqliteCatalog, credentials, unavailable};

/// A row of `projects`.
#[derive(FromRow)]
pub(crate) struct ProjectRow {
    id: String,
    name: String,
    enabled: bool,
    created_at: i64,
}

impl ProjectRow {
    pub(crate) fn project(&self) -> Result<Project, CatalogError> {
        let row = RowOf { table: "projects", key: &self.id };
        let id: ProjectId = row.parse(&self.id)?;
        let name = match self.name == self.id {
            true => ProjectName::unnamed(&id),
            false => row.parse(&self.name)?,
        };
        Ok(Project { id, name, enabled: self.enabled, created_at: row.moment(self.created_at)? })
    }
}

#[async_trait]
impl ProjectCatalog for SqliteCatalog {
    async fn administers_service(&self, project: &ProjectId) -> Result<bool, CatalogError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM credentials
                 WHERE project_id = ? AND administers_service AND user_id IS NULL)",
        )
        .bind(project.as_str())
        .fetch_one(&self.readers)
        .await
        .map_err(unavailable)
    }

    async fn create_project(
        &self,
        project: &Project,
        first: Option<&StoredCredential>,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        if is_there(&mut tx, &project.id).await? {
            return Err(CatalogError::Taken("project id"));
        }
        let inserted = sqlx::query(
            "INSERT INTO projects (id, name, enabled, created_at) VALUES (?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
        )
        .bind(project.id.as_str())
        .bind(project.name.as_str())
        .bind(project.enabled)
        .bind(project.created_at.as_microsecond())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        if inserted.rows_affected() == 0 {
            return Err(CatalogError::Taken("project name"));
        }
        if let Some(first) = first {
            credentials::insert(&mut tx, first).await?;
        }
        tx.commit().await.map_err(unavailable)
    }

    async fn add_credential(&self, credential: &StoredCredential) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        credentials::insert(&mut tx, credential).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn has_projects(&self) -> Result<bool, CatalogError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM projects)")
            .fetch_one(&self.readers)
            .await
            .map_err(unavailable)
    }

    async fn find_credential(
        &self,
        access_key: &AccessKey,
    ) -> Result<Option<KeyHolder>, CatalogError> {
        credentials::find(&self.readers, access_key).await
    }

    async fn list_credentials(
        &self,
        project: &ProjectId,
        page: Page,
    ) -> Result<Listing<Credential>, CatalogError> {
        let mut tx = self.read().await?;
        credentials::list(&mut tx, project, page).await
    }

    async fn update_credential(
        &self,
        access_key: &AccessKey,
        changes: &CredentialChanges,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        credentials::update(&mut tx, access_key, changes).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn rotate_credential(
        &self,
        old: &AccessKey,
        old_ends_at: Option<Timestamp>,
        new: &StoredCredential,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        credentials::end(&mut tx, old, old_ends_at).await?;
        credentials::insert(&mut tx, new).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn remove_credential(&self, access_key: &AccessKey) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        credentials::remove(&mut tx, access_key).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn list_projects(
        &self,
        filter: &ProjectFilter,
        page: Page,
    ) -> Result<Listing<Project>, CatalogError> {
        let mut count = QueryBuilder::new("SELECT count(*) FROM projects WHERE 1");
        let mut select =
            QueryBuilder::new("SELECT id, name, enabled, created_at FROM projects WHERE 1");
        for query in [&mut count, &mut select] {
            if let Some(id) = &filter.id {
                query.push(" AND id = ").push_bind(id.as_str().to_owned());
            }
            if let Some(name) = &filter.name {
                query.push(" AND name = ").push_bind(name.clone());
            }
        }
        select.push(" ORDER BY name LIMIT ").push_bind(i64::from(page.limit));
        select.push(" OFFSET ").push_bind(signed(page.offset));
        let mut tx = self.read().await?;
        let total: i64 =
            count.build_query_scalar().fetch_one(&mut *tx).await.map_err(unavailable)?;
        let rows: Vec<ProjectRow> =
            select.build_query_as().fetch_all(&mut *tx).await.map_err(unavailable)?;
        let items = rows.iter().map(ProjectRow::project).collect::<Result<_, _>>()?;
        Ok(Listing { items, total: total.unsigned_abs() })
    }

    async fn update_project(
        &self,
        id: &ProjectId,
        changes: &ProjectChanges,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        if !is_there(&mut tx, id).await? {
            return Err(CatalogError::NotFound("project"));
        }
        let updated = sqlx::query(
            "UPDATE OR IGNORE projects SET name = coalesce(?2, name), enabled = coalesce(?3, enabled)
             WHERE id = ?1",
        )
        .bind(id.as_str())
        .bind(changes.name.as_ref().map(ProjectName::as_str))
        .bind(changes.enabled)
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        if updated.rows_affected() == 0 {
            return Err(CatalogError::Taken("project name"));
        }
        tx.commit().await.map_err(unavailable)
    }

    async fn check(&self) -> Result<(), CatalogError> {
        sqlx::query("SELECT count(*) FROM projects")
            .execute(&self.readers)
            .await
            .map_err(unavailable)?;
        self.write().await?.rollback().await.map_err(unavailable)
    }
}

/// Whether there is this project.
pub(crate) async fn is_there(
    tx: &mut SqliteConnection,
    project: &ProjectId,
) -> Result<bool, CatalogError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM projects WHERE id = ?)")
        .bind(project.as_str())
        .fetch_one(tx)
        .await
        .map_err(unavailable)
}
