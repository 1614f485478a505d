use async_trait::async_trait;
use cachevault_catalog::{CatalogError, StoreCatalog};
use cachevault_domain::StoreId;
use sqlx::SqliteExecutor;

use crate::row::RowOf;
use crate::{SqliteCatalog, unavailable};

async fn known(executor: impl SqliteExecutor<'_>) -> Result<Option<StoreId>, CatalogError> {
    let query = sqlx::query_scalar("SELECT id FROM store");
    let id: Option<String> = query.fetch_optional(executor).await.map_err(unavailable)?;
    let row = RowOf { table: "store", key: "1" };
    id.map(|id| row.parse(&id)).transpose()
}

#[async_trait]
impl StoreCatalog for SqliteCatalog {
    async fn store_id(&self) -> Result<Option<StoreId>, CatalogError> {
        known(&self.readers).await
    }

    async fn set_store_id(
        &self,
        earlier: Option<StoreId>,
        id: StoreId,
    ) -> Result<(), CatalogError> {
        let mut tx = self.write().await?;
        if known(&mut *tx).await? != earlier {
            return Err(CatalogError::Taken("store"));
        }
        sqlx::query("INSERT OR REPLACE INTO store (only_row, id) VALUES (1, ?)")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }
}
