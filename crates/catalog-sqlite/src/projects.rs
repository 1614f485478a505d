use async_trait::async_trait;
use cachevault_catalog::{CatalogError, ProjectCatalog, StoredCredential};
use cachevault_domain::{AccessKey, SealedSecret};
use jiff::Timestamp;
use sqlx::SqliteConnection;

use crate::row::RowOf;
use crate::{SqliteCatalog, unavailable};

#[async_trait]
impl ProjectCatalog for SqliteCatalog {
    async fn create_project(
        &self,
        credential: &StoredCredential,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        let project = sqlx::query(
            "INSERT INTO projects (id, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(credential.project.as_str())
        .bind(now.as_microsecond())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        let is_new = insert_credential(&mut tx, credential, now).await?;
        if project.rows_affected() == 0 {
            return Err(CatalogError::Taken("project id"));
        }
        if !is_new {
            return Err(CatalogError::Taken("access key"));
        }
        tx.commit().await.map_err(unavailable)
    }

    async fn add_credential(
        &self,
        credential: &StoredCredential,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        let found: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM projects WHERE id = ?)")
            .bind(credential.project.as_str())
            .fetch_one(&mut *tx)
            .await
            .map_err(unavailable)?;
        if !found {
            return Err(CatalogError::NotFound("project"));
        }
        if !insert_credential(&mut tx, credential, now).await? {
            return Err(CatalogError::Taken("access key"));
        }
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
    ) -> Result<Option<StoredCredential>, CatalogError> {
        let row: Option<(String, Vec<u8>)> =
            sqlx::query_as("SELECT project_id, secret FROM credentials WHERE access_key = ?")
                .bind(access_key.as_str())
                .fetch_optional(&self.readers)
                .await
                .map_err(unavailable)?;
        let Some((project, secret)) = row else { return Ok(None) };
        let row = RowOf { table: "credentials", key: access_key.as_str() };
        Ok(Some(StoredCredential {
            access_key: access_key.clone(),
            project: row.parse(&project)?,
            secret: SealedSecret(secret),
        }))
    }

    async fn check(&self) -> Result<(), CatalogError> {
        sqlx::query("SELECT count(*) FROM projects")
            .execute(&self.readers)
            .await
            .map_err(unavailable)?;
        self.write().await?.rollback().await.map_err(unavailable)
    }
}

/// Whether there was none of this key.
async fn insert_credential(
    tx: &mut SqliteConnection,
    credential: &StoredCredential,
    now: Timestamp,
) -> Result<bool, CatalogError> {
    let inserted = sqlx::query(
        "INSERT INTO credentials (access_key, project_id, secret, created_at) VALUES (?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
    )
    .bind(credential.access_key.as_str())
    .bind(credential.project.as_str())
    .bind(&credential.secret.0)
    .bind(now.as_microsecond())
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(inserted.rows_affected() > 0)
}
