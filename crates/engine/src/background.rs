//! A thread that runs only when nobody else wants the processor.
//!
//! A server that is captured often shares the machine, and its child and its main thread need two
//! processors for as long as the capture lasts. The kernel's idle policy lets our computing fill
//! the gaps they leave: with it, a capture on two cores takes as long as receiving alone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Work that shows whether processors are idle: a few turns of the scheduler, because even a thread
/// that nobody leaves a processor to gets the first one soon.
const TRIAL: Duration = Duration::from_millis(10);
/// How long that may take.
const TRIAL_MAX: Duration = Duration::from_millis(100);
const TRY_EVERY: Duration = Duration::from_millis(200);

/// Finds out, on a thread of the idle policy, whether such threads get a processor. On a machine
/// without idle time they get next to none, and who hands work over to one waits for seconds.
pub(crate) struct IdleWatch(Arc<AtomicBool>);

impl IdleWatch {
    /// Tries until processors were idle once, or this is dropped.
    pub(crate) fn start() -> Self {
        let is_idle = Arc::new(AtomicBool::new(false));
        let watched = Arc::downgrade(&is_idle);
        let trying = std::thread::Builder::new().name("idle-watch".to_owned()).spawn(move || {
            stand_back();
            while let Some(is_idle) = watched.upgrade() {
                if has_idle_time() {
                    return is_idle.store(true, Ordering::Relaxed);
                }
                drop(is_idle);
                std::thread::sleep(TRY_EVERY);
            }
        });
        if let Err(error) = trying {
            tracing::debug!(%error, "no thread to find out whether processors are idle");
        }
        Self(is_idle)
    }

    /// Whether processors were idle since the start.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(target_os = "linux")]
fn has_idle_time() -> bool {
    use rustix::time::{ClockId, clock_gettime};
    let processor_time = || {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(spent).unwrap_or_default()
    };
    let (began, until) = (Instant::now(), processor_time() + TRIAL);
    while processor_time() < until {
        std::hint::spin_loop();
    }
    began.elapsed() < TRIAL_MAX
}

#[cfg(not(target_os = "linux"))]
fn has_idle_time() -> bool {
    true
}

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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_machine_whose_processors_are_all_taken_is_not_idle() {
        let taken = AtomicBool::new(true);
        let loops = std::thread::available_parallelism().map_or(2, |cores| 2 * cores.get());
        std::thread::scope(|scope| {
            for _ in 0..loops {
                scope.spawn(|| {
                    while taken.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let watching = scope.spawn(|| {
                stand_back();
                has_idle_time()
            });
            let is_idle = watching.join();
            taken.store(false, Ordering::Relaxed);
            assert!(!is_idle.unwrap());
        });
    }
}
