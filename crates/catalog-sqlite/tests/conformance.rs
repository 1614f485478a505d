//! The SQLite catalog keeps every promise of the seam.

#![expect(clippy::unwrap_used, reason = "a rig that breaks stops its test")]

use std::ops::Deref;

use cachevault_catalog::catalog_conformance;
use cachevault_catalog_sqlite::SqliteCatalog;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
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
async fn a_catalog_from_before_restores_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let migrations = folder.path().join("migrations");
    std::fs::create_dir(&migrations).unwrap();
    let first = include_str!("../migrations/0001_initial.sql");
    std::fs::write(migrations.join("0001_initial.sql"), first).unwrap();
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let old = SqlitePool::connect_with(options).await.unwrap();
    Migrator::new(migrations.as_path()).await.unwrap().run(&old).await.unwrap();
    sqlx::query(
        "INSERT INTO projects (id, created_at) VALUES ('00112233445566778899aabbccddeeff', 0)",
    )
    .execute(&old)
    .await
    .unwrap();
    old.close().await;
    let catalog = SqliteCatalog::open(&path).await.unwrap();
    use cachevault_catalog::ProjectCatalog;
    assert!(catalog.has_projects().await.unwrap());
    cachevault_catalog::conformance::a_restore_and_a_capture_keep_each_other_out(&catalog).await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    std::fs::write(&path, vec![b'x'; 4096]).unwrap();
    assert!(SqliteCatalog::open(&path).await.is_err());
}
