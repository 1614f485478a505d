//! The SQLite catalog keeps every promise of the seam.

#![expect(clippy::unwrap_used, reason = "a rig that breaks stops its test")]

use std::ops::Deref;

use cachevault_catalog::catalog_conformance;
use cachevault_catalog_sqlite::SqliteCatalog;
use tempfile::TempDir;

struct Fresh {
    catalog: SqliteCatalog,
    _folder: TempDir,
}

impl Deref for Fresh {
    type Target = SqliteCatalog;

    fn deref(&self) -> &SqliteCatalog {
        &self.catalog
    }
}

async fn fresh() -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let catalog = SqliteCatalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
    Fresh { catalog, _folder: folder }
}

catalog_conformance!(fresh());

#[tokio::test]
async fn opening_again_keeps_everything_and_migrates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    cachevault_catalog::conformance::a_project_is_created_once(&catalog).await;
    catalog.close().await;
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    use cachevault_catalog::ProjectCatalog;
    assert!(catalog.has_projects().await.unwrap());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    std::fs::write(&path, vec![b'x'; 4096]).unwrap();
    assert!(SqliteCatalog::open(&path).await.is_err());
}
