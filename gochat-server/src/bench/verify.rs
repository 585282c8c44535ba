//! Whether anything was lost, repeated or disordered: live, by what receivers saw, and afterwards, by the log.

use std::collections::{HashMap, HashSet};

use super::wire::Stamp;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub lost: u64,
    pub repeated: u64,
    pub disordered: u64,
    /// Frames that never came live. They are hints, so this is no violation; in a quiet run there are none.
    pub missing_live: u64,
}

/// What receivers saw, and what senders were told.
#[derive(Default)]
pub struct Ledger {
    last: HashMap<(u32, u32), u32>,
    missing: HashSet<(u32, u32, u32)>,
    refused: HashSet<(u32, u32)>,
    acked: HashMap<u32, Vec<(i64, u32, u32)>>,
    verdict: Verdict,
}

impl Ledger {
    /// A receiver saw a message.
    pub fn seen(&mut self, receiver: u32, stamp: Stamp) {
        let last = self.last.entry((receiver, stamp.sender)).or_insert(0);
        if stamp.number > *last {
            self.missing.extend((*last + 1..stamp.number).map(|number| (receiver, stamp.sender, number)));
            *last = stamp.number;
        } else if self.missing.remove(&(receiver, stamp.sender, stamp.number)) {
            self.verdict.disordered += 1;
        } else {
            self.verdict.repeated += 1;
        }
    }

    /// A sender was told that its message is stored.
    pub fn acked(&mut self, conversation: u32, seq: i64, sender: u32, number: u32) {
        self.acked.entry(conversation).or_default().push((seq, sender, number));
    }

    /// A message was refused: nobody can see it.
    pub fn refused(&mut self, sender: u32, number: u32) {
        self.refused.insert((sender, number));
    }

    /// The log of a conversation, as it was read afterwards: every entry's seq and, where it is a message of ours, its stamp.
    pub fn read(&mut self, conversation: u32, log: &[(i64, Option<Stamp>)]) {
        let holes = log.iter().zip(1..).filter(|((seq, _), expected)| seq != expected).count();
        self.verdict.disordered += holes as u64;
        let mut stored = HashMap::new();
        let mut last: HashMap<u32, u32> = HashMap::new();
        for (seq, stamp) in log {
            let Some(stamp) = stamp else { continue };
            if stored.insert((stamp.sender, stamp.number), *seq).is_some() {
                self.verdict.repeated += 1;
                continue;
            }
            let last = last.entry(stamp.sender).or_insert(0);
            if stamp.number < *last {
                self.verdict.disordered += 1;
            }
            *last = stamp.number.max(*last);
        }
        for (seq, sender, number) in self.acked.get(&conversation).into_iter().flatten() {
            match stored.get(&(*sender, *number)) {
                Some(at) if at == seq => {}
                Some(_) => self.verdict.disordered += 1,
                None => self.verdict.lost += 1,
            }
        }
    }

    pub fn verdict(&self) -> Verdict {
        let missing = self.missing.iter().filter(|(_, sender, number)| !self.refused.contains(&(*sender, *number)));
        Verdict { missing_live: missing.count() as u64, ..self.verdict }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stamp(number: u32) -> Stamp {
        Stamp { sent: Duration::ZERO, sender: 1, number }
    }

    fn log(numbers: &[u32]) -> Vec<(i64, Option<Stamp>)> {
        std::iter::once((1, None)).chain((2..).zip(numbers.iter().map(|number| Some(stamp(*number))))).collect()
    }

    fn judged(live: &[u32], acked: &[(i64, u32)], stored: &[u32]) -> Verdict {
        let mut ledger = Ledger::default();
        live.iter().for_each(|number| ledger.seen(9, stamp(*number)));
        acked.iter().for_each(|(seq, number)| ledger.acked(0, *seq, 1, *number));
        ledger.read(0, &log(stored));
        ledger.verdict()
    }

    #[test]
    fn a_clean_run_is_clean() {
        assert_eq!(judged(&[1, 2, 3], &[(2, 1), (3, 2), (4, 3)], &[1, 2, 3]), Verdict::default());
    }

    #[test]
    fn each_fault_is_found() {
        assert_eq!(judged(&[1, 2], &[(2, 1), (3, 2)], &[1]), Verdict { lost: 1, ..Verdict::default() });
        assert_eq!(judged(&[1, 2, 2], &[], &[1, 2]), Verdict { repeated: 1, ..Verdict::default() });
        assert_eq!(judged(&[1, 3, 2], &[], &[1, 2, 3]), Verdict { disordered: 1, ..Verdict::default() });
        assert_eq!(judged(&[1, 3], &[], &[1, 2, 3]), Verdict { missing_live: 1, ..Verdict::default() });
        assert_eq!(judged(&[1, 2], &[], &[1, 1, 2]), Verdict { repeated: 1, ..Verdict::default() });
        assert_eq!(judged(&[1, 2], &[], &[2, 1]), Verdict { disordered: 1, ..Verdict::default() });
        assert_eq!(judged(&[1], &[(3, 1)], &[1]), Verdict { disordered: 1, ..Verdict::default() });
        let mut ledger = Ledger::default();
        ledger.read(0, &[(1, None), (3, None)]);
        assert_eq!(ledger.verdict(), Verdict { disordered: 1, ..Verdict::default() });
    }
}
