//! A line on standard error, once a second, so that nobody wonders whether it still runs.

use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(1);

pub struct Line {
    what: &'static str,
    began: Instant,
    next: Instant,
}

impl Line {
    pub fn new(what: &'static str) -> Self {
        let began = Instant::now();
        Line { what, began, next: began + EVERY }
    }

    #[expect(clippy::print_stderr, reason = "this is what it is for")]
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + EVERY;
            eprintln!("{} {:>4} s  {}", self.what, now.duration_since(self.began).as_secs(), text());
        }
    }
}
