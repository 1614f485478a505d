//! What a source must not suffer for a capture: looked at before it forks, and while its child runs.

use std::time::Duration;

use cachevault_domain::Role;

use crate::info::ServerInfo;

const MIB: u64 = 1 << 20;

/// What a source must not suffer for a capture. The defaults keep no healthy server from its backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimits {
    /// Memory of the source's machine that has to stay free, percent of all that it has, 0 to 100.
    /// While a snapshot is sent what it copies is counted as used.
    pub memory_reserve_percent: u8,
    /// Memory that may be copied because it is written to while the child runs, percent of what the
    /// source uses.
    pub copied_percent_max: u16,
    /// For how long its last fork may have stopped the source.
    pub fork_pause_max: Duration,
    /// Longest time that the source may take to answer while its child runs.
    pub answer_max: Duration,
    /// For how long a replica may have heard nothing of its primary.
    pub replica_lag_max: Duration,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self {
            memory_reserve_percent: 5,
            copied_percent_max: 100,
            fork_pause_max: Duration::from_secs(10),
            answer_max: Duration::from_secs(2),
            replica_lag_max: Duration::from_secs(30),
        }
    }
}

impl SourceLimits {
    /// Why the source should not fork now, though later it may.
    pub(crate) fn reason_to_wait(&self, info: &ServerInfo) -> Option<String> {
        let silence = Duration::from_secs(info.primary_silent_seconds);
        if info.role == Role::Replica && silence > self.replica_lag_max {
            let seconds = silence.as_secs();
            return Some(format!("the replica has heard nothing of its primary for {seconds} s"));
        }
        // What the last snapshot copied says little of the next, and would stand there until then.
        self.memory_shortage(info, 0)
    }

    /// Why the source should not fork at all.
    pub(crate) fn reason_to_refuse(&self, info: &ServerInfo) -> Option<String> {
        (info.last_fork > self.fork_pause_max).then(|| {
            format!(
                "its last fork stopped it for {} ms, and {} are allowed; add a replica to capture from, \
                 or raise `fork_pause_max`",
                info.last_fork.as_millis(),
                self.fork_pause_max.as_millis()
            )
        })
    }

    /// What the child of a capture does to the source beyond what it may.
    pub(crate) fn harm(&self, info: &ServerInfo, answered_in: Duration) -> Option<String> {
        let copied_max = info.used_bytes() / 100 * u64::from(self.copied_percent_max);
        if answered_in > self.answer_max {
            return Some(self.slow(answered_in));
        }
        if info.copied_bytes > copied_max {
            return Some(format!(
                "{} MiB were copied since the fork because they were written to, and {} % of what it uses, \
                 {} MiB, are allowed",
                info.copied_bytes / MIB,
                self.copied_percent_max,
                copied_max / MIB
            ));
        }
        self.memory_shortage(info, info.copied_bytes)
    }

    /// What a source suffers that takes so long to answer.
    pub(crate) fn slow(&self, answered_in: Duration) -> String {
        format!(
            "it takes {} ms to answer, and {} are allowed",
            answered_in.as_millis(),
            self.answer_max.as_millis()
        )
    }

    fn memory_shortage(&self, info: &ServerInfo, copied_bytes: u64) -> Option<String> {
        let total = info.system_memory_bytes;
        let used = info.used_bytes().saturating_add(copied_bytes);
        let used_max = total - total / 100 * u64::from(self.memory_reserve_percent.min(100));
        // Who does not tell what the machine has cannot be judged.
        (total > 0 && used > used_max).then(|| {
            format!(
                "the source's machine has {} MiB of memory, the server and its snapshot take {} MiB of them, \
                 and {} % are to stay free; give it more memory, or lower `memory_reserve_percent`",
                total / MIB,
                used / MIB,
                self.memory_reserve_percent
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: &str = "redis_version:7.0.15\r\nrole:master\r\nused_memory:400000000\r\n\
        used_memory_rss:500000000\r\ntotal_system_memory:1000000000\r\n\
        current_cow_size:50000000\r\nlatest_fork_usec:9000\r\n";

    fn info(change: &str) -> ServerInfo {
        ServerInfo::parse(&format!("{HEALTHY}{change}\r\n")).unwrap()
    }

    const QUICK: Duration = Duration::from_millis(1);

    #[test]
    fn a_healthy_server_is_left_alone() {
        let (limits, info) = (SourceLimits::default(), info(""));
        assert_eq!(limits.reason_to_wait(&info), None);
        assert_eq!(limits.reason_to_refuse(&info), None);
        assert_eq!(limits.harm(&info, QUICK), None);
    }

    #[test]
    fn a_server_that_tells_nothing_is_left_alone() {
        let info = ServerInfo::parse("redis_version:7.0.15\r\n").unwrap();
        let limits = SourceLimits { memory_reserve_percent: 100, ..SourceLimits::default() };
        assert_eq!(limits.reason_to_wait(&info), None);
        assert_eq!(limits.reason_to_refuse(&info), None);
        assert_eq!(limits.harm(&info, QUICK), None);
    }

    #[test]
    fn memory_that_would_run_out_is_seen_before_and_during() {
        let limits = SourceLimits::default();
        let reason = limits.reason_to_wait(&info("used_memory_rss:960000000")).unwrap();
        assert!(reason.contains("953 MiB of memory"), "{reason}");
        assert_eq!(limits.reason_to_wait(&info("used_memory_rss:940000000")), None);
        let reason = limits.harm(&info("current_cow_size:460000000"), QUICK).unwrap();
        assert!(reason.contains("5 % are to stay free"), "{reason}");
    }

    #[test]
    fn each_limit_is_seen_by_itself() {
        let limits = SourceLimits { copied_percent_max: 20, ..SourceLimits::default() };
        let reason = limits.harm(&info("current_cow_size:110000000"), QUICK).unwrap();
        assert!(reason.contains("20 %"), "{reason}");
        let reason = limits.harm(&info(""), Duration::from_millis(2001)).unwrap();
        assert!(reason.contains("2001 ms"), "{reason}");
        let reason = limits.reason_to_refuse(&info("latest_fork_usec:10000001")).unwrap();
        assert!(reason.contains("10000 ms"), "{reason}");
        let silent = "role:slave\r\nmaster_last_io_seconds_ago:31";
        let reason = limits.reason_to_wait(&info(silent)).unwrap();
        assert!(reason.contains("31 s"), "{reason}");
    }
}
