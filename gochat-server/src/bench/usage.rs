//! What a process has used so far (proc(5)).

use std::time::Duration;

#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time on processors, all threads together.
    pub cpu: Duration,
    /// Bytes of memory that it holds.
    pub resident: u64,
}

/// Of a process; `None` if this system does not tell.
pub fn of(id: u32) -> Option<Usage> {
    // In nanoseconds by thread; what ended threads used is lost, but those that work live on.
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).ok()?.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    let cpu = Duration::from_nanos(threads.sum());
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse::<u64>().ok()?;
    Some(Usage { cpu, resident: kib * 1024 })
}

/// Of this process.
pub fn own() -> Option<Usage> {
    of(std::process::id())
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_uses_something() {
        let usage = super::own().unwrap();
        assert!(usage.resident > 100_000 && !usage.cpu.is_zero(), "{usage:?}");
    }
}
