//! A line on standard error, once a second, so that nobody wonders whether it still runs.

use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(1);

pub struct Line {
    began: Instant,
    next: Instant,
    quiet: bool,
}

impl Line {
    pub fn new(quiet: bool) -> Self {
        let began = Instant::now();
        Line { began, next: began + EVERY, quiet }
    }

    #[expect(clippy::print_stderr, reason = "this is what it is for")]
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if now >= self.next && !self.quiet {
            self.next = now + EVERY;
            eprintln!("{:>4} s  {}", now.duration_since(self.began).as_secs(), text());
        }
    }
}
