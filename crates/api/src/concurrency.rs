//! Limits how many requests of one credential run at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cachevault_domain::Subject;

use crate::auth::Identity;
use crate::gateway::GatewayError;

/// Maximum of concurrent requests per credential. Requests that wait for file removal are slow;
/// known clients send only a few at a time.
const RUNNING_MAX: usize = 128;

/// Counts the running requests per holder.
#[derive(Debug, Clone)]
pub(crate) struct Concurrency {
    running: Arc<Mutex<HashMap<String, usize>>>,
    max: usize,
}

impl Default for Concurrency {
    /// The limit for one credential.
    fn default() -> Self {
        Self::of(RUNNING_MAX)
    }
}

/// A running request. Dropping the permit ends it.
#[derive(Debug)]
pub(crate) struct Running {
    concurrency: Concurrency,
    who: String,
}

impl Concurrency {
    /// A limiter with `max` permits per holder.
    pub(crate) fn of(max: usize) -> Self {
        Self { running: Arc::default(), max }
    }

    /// Acquires a permit, unless the holder is at its limit.
    pub(crate) fn begin(&self, who: String) -> Option<Running> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(who.clone()).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Running { concurrency: self.clone(), who })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let running = &self.concurrency.running;
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.who);
            }
        }
    }
}

/// Passes a request on unless its credential is at the limit. The layer runs after authentication,
/// so a client cannot exhaust the limit of another credential. It runs before the audit layer to
/// bound its writes; refused requests appear only in the log.
pub(crate) async fn limit(
    State(concurrency): State<Concurrency>,
    Extension(identity): Extension<Identity>,
    request: Request,
    next: Next,
) -> Response {
    let Some(_running) = concurrency.begin(credential(identity.caller.subject())) else {
        tracing::warn!("request refused: too many concurrent requests of one credential");
        return GatewayError::TooManyAtOnce.into_response();
    };
    next.run(request).await
}

/// The holder of a credential or user, independent of its spelling in the request.
fn credential(subject: &Subject) -> String {
    match subject {
        Subject::Key { access_key, .. } => access_key.to_string(),
        Subject::User(user) => user.id.to_string(),
        Subject::Service => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_refused_at_its_limit_and_no_other() {
        let concurrency = Concurrency::default();
        let begin = |name: &str| concurrency.begin(name.to_owned());
        let mut running: Vec<_> = (0..RUNNING_MAX).filter_map(|_| begin("a")).collect();
        assert_eq!(running.len(), RUNNING_MAX);
        assert!(begin("a").is_none() && begin("b").is_some());
        running.pop();
        assert!(begin("a").is_some());
        drop(running);
        assert!(
            concurrency.running.lock().unwrap().is_empty(),
            "entries of ended requests must be removed"
        );
    }
}
