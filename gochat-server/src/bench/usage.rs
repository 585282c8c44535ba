//! What processes have used so far (proc(5)).

use std::{str::FromStr, time::Duration};

#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time on processors, all threads together.
    pub cpu: Duration,
    /// Bytes of memory that it holds.
    pub resident: u64,
}

/// A process that is looked at: `123`, or with a name of its own among several, `repo=123`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    pub name: String,
    pub id: u32,
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, id) = text.split_once('=').unwrap_or(("server", text));
        let id = id.parse().map_err(|_| format!("{text:?} is neither a process id nor name=id"))?;
        Ok(Watched { name: name.to_owned(), id })
    }
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
