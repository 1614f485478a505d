use cachevault_catalog::{OpenJobs, WatchedInstance};

use crate::{App, AppError};

/// The instances that can be watched one by one: what watches them keeps something for each.
const WATCHED_MAX: u32 = 10_000;

/// What is seen of the whole service at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Instances of all projects, the first 10,000 at the most.
    pub instances: Vec<WatchedInstance>,
    /// Open jobs, by kind.
    pub jobs: Vec<OpenJobs>,
}

impl App {
    /// What whoever watches the whole service sees: no project and no permission is asked for.
    ///
    /// # Errors
    /// [`AppError::CatalogFailed`].
    pub async fn watch(&self) -> Result<Watched, AppError> {
        Ok(Watched {
            instances: self.catalog.watched_instances(WATCHED_MAX).await?,
            jobs: self.catalog.open_jobs().await?,
        })
    }
}
