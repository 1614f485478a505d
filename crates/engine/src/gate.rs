//! One capture of a server at a time, however many instances name it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Knows which servers are being captured by this process.
#[derive(Debug, Clone, Default)]
pub struct SourceGate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Run ids: what a server calls itself, whatever its addresses.
    taken: Mutex<HashSet<String>>,
    left: Notify,
}

/// Keeps others from the server until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: SourceGate,
    run_id: String,
}

impl SourceGate {
    /// Waits until nobody here captures the server that calls itself `run_id`.
    pub(crate) async fn enter(&self, run_id: &str) -> Pass {
        loop {
            // Registered before the look, so that a leaving in between is not missed.
            let left = self.0.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.lock().insert(run_id.to_owned()) {
                return Pass { gate: self.clone(), run_id: run_id.to_owned() };
            }
            left.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.lock().remove(&self.run_id);
        self.gate.0.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_a_third_elsewhere_does_not() {
        let gate = SourceGate::default();
        let first = gate.enter("a").await;
        let _elsewhere = gate.enter("b").await;
        let second = gate.enter("a");
        tokio::pin!(second);
        assert!(futures_are_pending(second.as_mut()).await);
        drop(first);
        second.await;
    }

    async fn futures_are_pending(future: std::pin::Pin<&mut impl Future>) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = std::future::ready(()) => true,
        }
    }
}
