//! Lets the use cases look at servers through the engine.

use async_trait::async_trait;
use cachevault_app::Prober;
use cachevault_domain::{Observation, ProbeError, Target};
use cachevault_engine::{ProbeLimits, look, probe};

/// Looks at real servers.
#[derive(Debug, Clone, Copy)]
pub struct EngineProber {
    /// Bounds of a look.
    pub limits: ProbeLimits,
}

#[async_trait]
impl Prober for EngineProber {
    async fn probe(&self, target: &Target) -> Result<Observation, ProbeError> {
        probe(target, self.limits).await
    }

    async fn look(&self, target: &Target) -> Result<Observation, ProbeError> {
        look(target, self.limits).await
    }
}
