//! Lets the use cases look at servers through the engine.

use async_trait::async_trait;
use cachevault_app::Prober;
use cachevault_domain::{
    Observation, ProbeError, RestoreOptions, RestorePlan, Target, with_sources,
};
use cachevault_engine::{PlanRequest, ProbeLimits, look, plan, probe};
use cachevault_store::ArtifactEntry;

/// Looks at real servers.
#[derive(Debug, Clone, Copy)]
pub struct EngineProber {
    /// Bounds of a look.
    pub limits: ProbeLimits,
    /// Whether there is a certificate for targets that replicate by TLS.
    pub has_certificate: bool,
}

#[async_trait]
impl Prober for EngineProber {
    async fn probe(&self, target: &Target) -> Result<Observation, ProbeError> {
        probe(target, self.limits).await
    }

    async fn look(&self, target: &Target) -> Result<Observation, ProbeError> {
        look(target, self.limits).await
    }

    async fn plan(
        &self,
        target: &Target,
        entry: &ArtifactEntry,
        options: &RestoreOptions,
    ) -> Result<RestorePlan, String> {
        let planned = plan(PlanRequest {
            target,
            entry,
            options,
            has_certificate: self.has_certificate,
            target_writes: None,
            command: self.limits.command,
        });
        planned.await.map_err(|error| with_sources(&error))
    }
}
