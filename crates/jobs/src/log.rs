//! What the steps of a job leave for each other, in the catalog: sealed, because it names keys of the
//! data.

use cachevault_app::App;
use cachevault_catalog::CatalogError;
use cachevault_domain::{Lease, StepRecord};
use secrecy::{ExposeSecret, SecretString};

/// A finished step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) step: String,
    /// What it left, JSON; empty where that does not open any more.
    pub(crate) output: String,
}

/// The log of a leased job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepLog<'a> {
    pub(crate) app: &'a App,
    pub(crate) lease: &'a Lease,
}

impl StepLog<'_> {
    /// The finished steps, oldest first.
    pub(crate) async fn read(&self) -> Result<Vec<Logged>, CatalogError> {
        let records = self.app.catalog.step_log(self.lease).await?;
        Ok(records.into_iter().map(|record| self.opened(record)).collect())
    }

    /// Adds a finished step and what it left, JSON. The same step again changes nothing.
    pub(crate) async fn add(&self, step: &str, output: &str) -> Result<(), CatalogError> {
        let secret = SecretString::from(output.to_owned());
        let sealed = self.app.sealer.seal(&self.owner(step), &secret);
        self.app.catalog.log_step(self.lease, step, &sealed, self.app.clock.now()).await
    }

    /// Removes a step: its work was undone.
    pub(crate) async fn remove(&self, step: &str) -> Result<(), CatalogError> {
        self.app.catalog.unlog_step(self.lease, step).await
    }

    fn opened(&self, record: StepRecord) -> Logged {
        let StepRecord { step, output, .. } = record;
        let output = match self.app.sealer.open(&self.owner(&step), &output) {
            Ok(opened) => opened.expose_secret().to_owned(),
            // Logs of before they were sealed are text. What is sealed never is.
            Err(_) => String::from_utf8(output.0).unwrap_or_default(),
        };
        Logged { step, output }
    }

    fn owner(&self, step: &str) -> String {
        format!("job/{}/step/{step}", self.lease.job)
    }
}
