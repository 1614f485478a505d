use cachevault_domain::StoreId;

use crate::{Catalog, CatalogError};

pub async fn a_store_is_taken_only_in_the_place_of_the_one_that_is_known(catalog: &impl Catalog) {
    let [first, second]: [StoreId; 2] =
        ["5560df16-cebf-4473-95c4-d1b573c16e79", "4631832a-14c6-45b0-a0b3-3abd8f591ad1"]
            .map(|id| id.parse().unwrap());
    assert_eq!(catalog.store_id().await.unwrap(), None);
    let early = catalog.set_store_id(Some(second), first).await;
    assert!(matches!(early, Err(CatalogError::Taken("store"))), "{early:?}");
    catalog.set_store_id(None, first).await.unwrap();
    let late = catalog.set_store_id(None, second).await;
    assert!(matches!(late, Err(CatalogError::Taken("store"))), "{late:?}");
    assert_eq!(catalog.store_id().await.unwrap(), Some(first));
    catalog.set_store_id(Some(first), second).await.unwrap();
    assert_eq!(catalog.store_id().await.unwrap(), Some(second));
}
