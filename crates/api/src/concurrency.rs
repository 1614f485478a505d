//! How many requests of one credential are answered at a time, so that none takes all there is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cachevault_domain::Subject;

use crate::auth::Identity;
use crate::gateway::GatewayError;

/// Requests of one credential that are answered at a time. Those that wait for files to be removed
/// take long; none of the clients asks for more than a few.
const RUNNING_MAX: usize = 128;

/// Counts the requests that are being answered, by who asks.
#[derive(Debug, Clone)]
pub(crate) struct Concurrency {
    running: Arc<Mutex<HashMap<String, usize>>>,
    max: usize,
}

impl Default for Concurrency {
    /// As many as one credential may have.
    fn default() -> Self {
        Self::of(RUNNING_MAX)
    }
}

/// One request that is being answered, until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    concurrency: Concurrency,
    who: String,
}

impl Concurrency {
    /// As many as `max` of each.
    pub(crate) fn of(max: usize) -> Self {
        Self { running: Arc::default(), max }
    }

    /// One request more, unless there are too many.
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

/// Lets a request through unless too many of the same credential are being answered. It stands
/// behind authentication: nobody can use up what another's credential may. And it stands before the
/// audit, whose writes are what it is to bound too: what is refused here did nothing, and is
/// in the log alone.
pub(crate) async fn limit(
    State(concurrency): State<Concurrency>,
    Extension(identity): Extension<Identity>,
    request: Request,
    next: Next,
) -> Response {
    let Some(_running) = concurrency.begin(credential(identity.caller.subject())) else {
        tracing::warn!("too many requests of one credential");
        return GatewayError::TooManyAtOnce.into_response();
    };
    next.run(request).await
}

/// What stays the same in all requests of one credential or user, however they are spelt.
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
        assert!(concurrency.running.lock().unwrap().is_empty(), "nothing is kept of what is over");
    }
}
