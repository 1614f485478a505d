//! The first start: a project, a key for it and a master key are made.
//!
//! A data folder counts as new only while neither it nor its store holds anything: a catalog that was
//! lost must not be taken for one that never was. The file `first-start` is written before anything
//! else and removed when the project exists, so a first start that is killed goes on with the next.

use anyhow::Context;
use cachevault_app::{App, NewCredential};
use cachevault_store::{Folder, ObjectKind, Store, StoreError, StoreErrorKind};

use crate::data_dir::{Credentials, DataDir};

/// The purpose of opening a data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Running the service.
    Serve,
    /// Adding to the catalog what the store holds.
    Rebuild,
}

/// The catalog is empty although this data folder or its store was used before.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot start: the catalog is empty, but {remains}; run `cachevault catalog rebuild` with the \
     settings of `serve`, or, to start over without the earlier backups, choose an empty --data-dir \
     and an empty --store"
)]
pub(crate) struct CatalogLost {
    remains: String,
}

impl CatalogLost {
    fn file(path: &std::path::Path) -> Self {
        Self { remains: format!("`{}` is from an earlier start", path.display()) }
    }

    fn backups() -> Self {
        Self { remains: "the store holds backups".to_owned() }
    }
}

/// Lets a start without a catalog go on where it is the first one, and notes that it has begun.
/// Nothing is written otherwise.
pub(crate) async fn admit(
    data_dir: &DataDir,
    store: &dyn Store,
    purpose: Purpose,
) -> anyhow::Result<()> {
    if data_dir.catalog().exists() || data_dir.has_begun_first_start() {
        return Ok(());
    }
    match find_remains(data_dir, store).await? {
        None => data_dir.begin_first_start(),
        Some(lost) if purpose == Purpose::Serve => Err(lost.into()),
        Some(_) => Ok(()),
    }
}

async fn find_remains(
    data_dir: &DataDir,
    store: &dyn Store,
) -> anyhow::Result<Option<CatalogLost>> {
    let files = [data_dir.master_key_file(), data_dir.credentials()];
    if let Some(file) = files.iter().find(|file| file.exists()) {
        return Ok(Some(CatalogLost::file(file)));
    }
    match has_backups(store).await {
        Ok(has_backups) => Ok(has_backups.then(CatalogLost::backups)),
        // Opening the store has warned of it. Nothing is here that a first start could replace.
        Err(error) if error.kind == StoreErrorKind::Unavailable => Ok(None),
        Err(error) => Err(error).context("list the backups in the store"),
    }
}

async fn has_backups(store: &dyn Store) -> Result<bool, StoreError> {
    let mut after = None;
    loop {
        let page = store.list(&Folder::all(), after.as_ref()).await?;
        if page.iter().any(|object| matches!(object.name.kind(), Some(ObjectKind::Manifest(_)))) {
            return Ok(true);
        }
        after = page.into_iter().next_back().map(|object| object.name);
        if after.is_none() {
            return Ok(false);
        }
    }
}

/// Creates the first project and its key, once; later only keeps the endpoint in the file true.
///
/// The file is written before the catalog: a start that is killed between the two is taken up
/// with the same key by the next.
pub(crate) async fn first_start(
    app: &App,
    data_dir: &DataDir,
    (endpoint, region): (&str, &str),
    purpose: Purpose,
) -> anyhow::Result<()> {
    let found = data_dir.find_credentials()?;
    // SDKs that know no project id ask for the project that is named like the region.
    let name = region.parse().context("name the first project after the region")?;
    if app.has_projects().await.context("read the catalog")? {
        data_dir.end_first_start()?;
        app.name_only_project(&name).await.context("name the project")?;
        if let Some(credentials) =
            found.filter(|found| found.endpoint != endpoint || found.region != region)
        {
            let (endpoint, region) = (endpoint.to_owned(), region.to_owned());
            data_dir.write_credentials(&Credentials { endpoint, region, ..credentials })?;
        }
        return Ok(());
    }
    if purpose == Purpose::Serve && !data_dir.has_begun_first_start() {
        return Err(CatalogLost::file(&data_dir.master_key_file()).into());
    }
    let credential = match found {
        Some(credentials) => credentials.credential()?,
        None => NewCredential::mint(app),
    };
    data_dir.write_credentials(&Credentials::new(
        endpoint.to_owned(),
        region.to_owned(),
        &credential,
    ))?;
    app.create_first_project(&credential, &name).await.context("create the first project")?;
    data_dir.end_first_start()?;
    tracing::info!(
        project = %credential.project,
        credentials = %data_dir.credentials().display(),
        "first start: a project, a key for it and a master key were created"
    );
    Ok(())
}
