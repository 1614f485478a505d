//! Which store the backups are in.

use async_trait::async_trait;
use cachevault_domain::StoreId;

use crate::CatalogError;

/// The identity of the store that the records are of.
#[async_trait]
pub trait StoreCatalog: Send + Sync {
    /// The store that the backups are in; `None` until one was taken.
    async fn store_id(&self) -> Result<Option<StoreId>, CatalogError>;

    /// Takes a store in the place of `earlier`.
    ///
    /// # Errors
    /// [`CatalogError::Taken`] when it is not `earlier` that is known.
    async fn set_store_id(&self, earlier: Option<StoreId>, id: StoreId)
    -> Result<(), CatalogError>;
}
