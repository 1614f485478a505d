//! A thread that runs only when nobody else wants the processor.
//!
//! A server that is captured often shares the machine, and its child and its main thread need two
//! processors for as long as the capture lasts. The kernel's idle policy lets our computing fill
//! the gaps they leave: with it, a capture on two cores takes as long as receiving alone.

use std::io;

use tokio::sync::oneshot;

/// Runs `work` on a thread of its own under the idle policy (`SCHED_IDLE`; elsewhere the ordinary
/// one). An unprivileged thread cannot leave that policy again, so none of a pool may take it.
pub(crate) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (result, done) = oneshot::channel();
    std::thread::Builder::new().name("background".to_owned()).spawn(move || {
        stand_back();
        // Who asked may have left.
        let _ = result.send(work());
    })?;
    done.await.map_err(|_| io::Error::other("a background thread ended early"))
}

#[cfg(target_os = "linux")]
fn stand_back() {
    use thread_priority::unix::{
        NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id,
    };
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let lowest = thread_priority::ThreadPriority::Min;
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), lowest, idle) {
        // Nothing is lost but the courtesy.
        tracing::debug!(?error, "the system refuses the idle policy");
    }
}

#[cfg(not(target_os = "linux"))]
fn stand_back() {}
