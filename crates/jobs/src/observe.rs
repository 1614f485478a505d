//! Looks at every instance from time to time, so that lists can show real figures at once.

use std::time::Duration;

use cachevault_app::App;
use tokio::task::JoinSet;

use crate::shutdown::Shutdown;

/// Instances that are looked at in one round; the others come first in the next.
const BATCH: u32 = 256;
/// Looks that run at a time.
const RUNNING_MAX: usize = 16;

/// A reconciler: takes no input, may run any time, and twice.
#[derive(Debug)]
pub struct Observer {
    /// The use cases' context.
    pub app: App,
    /// How old figures may become.
    pub every: Duration,
}

impl Observer {
    /// Looks at instances until the soft phase of `shutdown`.
    pub async fn run(&self, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.soft.cancelled() => return,
                () = tokio::time::sleep(self.every / 3) => {}
            }
            tokio::select! {
                () = shutdown.soft.cancelled() => return,
                () = self.round() => {}
            }
        }
    }

    /// Looks once at every instance whose figures are too old.
    pub async fn round(&self) {
        let Ok(before) = self.app.clock.now().checked_sub(self.every) else { return };
        let due = match self.app.catalog.instances_seen_before(before, BATCH).await {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "instances cannot be listed"
                );
                return;
            }
        };
        let mut looks = JoinSet::new();
        for instance in due {
            if looks.len() >= RUNNING_MAX {
                looks.join_next().await;
            }
            let app = self.app.clone();
            looks.spawn(async move {
                match app.look_at_instance(&instance, None).await {
                    Ok(Ok(())) => {}
                    Ok(Err(down)) => tracing::warn!(instance = %instance.id, %down, "instance does not answer"),
                    Err(error) => tracing::error!(instance = %instance.id, %error, "instance cannot be looked at"),
                }
            });
        }
        while looks.join_next().await.is_some() {}
    }
}
