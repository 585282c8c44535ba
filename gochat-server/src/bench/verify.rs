//! Whether anything was lost, repeated or disordered: live, by what receivers saw, and afterwards, by the log.
//!
//! Senders number their messages 1, 2, 3 …, so a receiver knows what is missing without being told.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::wire::Stamp;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acked messages that the log does not hold, or that a receiver never saw although nobody told it to pull.
    pub lost: u64,
    /// Messages that the log holds twice, or that a receiver saw twice.
    pub repeated: u64,
    /// Holes in the numbers of a log, messages of one sender out of order, acks with another number than the log's.
    pub disordered: u64,
    /// Messages that a receiver never saw live. After a `resync` that is no fault: it pulls them.
    pub missing_live: u64,
    /// Messages that were refused as not accepted and are stored all the same.
    pub stored_though_refused: u64,
}

impl Verdict {
    /// Whether anything was found that must not be.
    pub fn is_violated(&self) -> bool {
        self.lost + self.repeated + self.disordered + self.stored_though_refused > 0
    }
}

/// What receivers saw, and what senders were told.
pub struct Ledger {
    /// How many senders a receiver hears at most.
    voices: usize,
    /// The highest number, by receiver and voice.
    last: Vec<u32>,
    /// Receiver, sender, number.
    missing: HashSet<(u32, u32, u32)>,
    /// Told to pull, so that what is missing live is no fault.
    resynced: HashSet<u32>,
    /// Sender and number of what was never acked.
    unsettled: HashSet<(u32, u32)>,
    /// Those among them of which the server said that it did not take them.
    refused: HashSet<(u32, u32)>,
    /// By conversation: seq, sender, number.
    acked: BTreeMap<usize, Vec<(i64, u32, u32)>>,
    verdict: Verdict,
}

impl Ledger {
    /// Of so many receivers, each of whom hears at most so many senders.
    pub fn new(receivers: usize, voices: usize) -> Self {
        Ledger {
            voices,
            last: vec![0; receivers * voices],
            missing: HashSet::new(),
            resynced: HashSet::new(),
            unsettled: HashSet::new(),
            refused: HashSet::new(),
            acked: BTreeMap::new(),
            verdict: Verdict::default(),
        }
    }

    /// A receiver saw a message; `voice` is the sender's number among those whom the receiver hears.
    pub fn seen(&mut self, receiver: usize, voice: usize, stamp: Stamp) {
        let last = &mut self.last[receiver * self.voices + voice];
        if stamp.number == *last + 1 {
            *last = stamp.number;
        } else if stamp.number > *last {
            self.missing.extend((*last + 1..stamp.number).map(|number| (receiver as u32, stamp.sender, number)));
            *last = stamp.number;
        } else if self.missing.remove(&(receiver as u32, stamp.sender, stamp.number)) {
            self.verdict.disordered += 1;
        } else {
            self.verdict.repeated += 1;
        }
    }

    /// A receiver was told that frames were dropped.
    pub fn resync(&mut self, receiver: usize) {
        self.resynced.insert(receiver as u32);
    }

    /// A sender was told that its message is stored.
    pub fn acked(&mut self, conversation: usize, seq: i64, sender: u32, number: u32) {
        self.acked.entry(conversation).or_default().push((seq, sender, number));
    }

    /// A message was not acked: it was refused, or nobody answered. `surely`: the server said that it did not take it.
    pub fn unsettled(&mut self, sender: u32, number: u32, surely: bool) {
        self.unsettled.insert((sender, number));
        if surely {
            self.refused.insert((sender, number));
        }
    }

    /// Nothing more comes: the receiver should have seen `sent` messages of that sender.
    pub fn due(&mut self, receiver: usize, voice: usize, sender: u32, sent: u32) {
        let last = self.last[receiver * self.voices + voice];
        self.missing.extend((last + 1..=sent).map(|number| (receiver as u32, sender, number)));
    }

    /// The log of a conversation, as it was read afterwards: every entry's seq and, where it is a message of ours, its stamp.
    pub fn read(&mut self, conversation: usize, log: &[(i64, Option<Stamp>)]) {
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
            self.verdict.stored_though_refused += u64::from(self.refused.contains(&(stamp.sender, stamp.number)));
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
        let mut verdict = self.verdict;
        for (receiver, sender, number) in &self.missing {
            if !self.unsettled.contains(&(*sender, *number)) {
                verdict.missing_live += 1;
                verdict.lost += u64::from(!self.resynced.contains(receiver));
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CLEAN: Verdict = Verdict { lost: 0, repeated: 0, disordered: 0, missing_live: 0, stored_though_refused: 0 };

    fn stamp(number: u32) -> Stamp {
        Stamp { sent: Duration::ZERO, sender: 1, number }
    }

    fn log(numbers: &[u32]) -> Vec<(i64, Option<Stamp>)> {
        std::iter::once((1, None)).chain((2..).zip(numbers.iter().map(|number| Some(stamp(*number))))).collect()
    }

    /// What one receiver saw, what the sender was told, what is stored.
    fn ledger(live: &[u32], acked: &[(i64, u32)], stored: &[u32]) -> Ledger {
        let mut ledger = Ledger::new(2, 1);
        live.iter().for_each(|number| ledger.seen(1, 0, stamp(*number)));
        acked.iter().for_each(|(seq, number)| ledger.acked(0, *seq, 1, *number));
        ledger.read(0, &log(stored));
        ledger
    }

    fn judged(live: &[u32], acked: &[(i64, u32)], stored: &[u32]) -> Verdict {
        ledger(live, acked, stored).verdict()
    }

    #[test]
    fn a_clean_run_is_clean() {
        let mut clean = ledger(&[1, 2, 3], &[(2, 1), (3, 2), (4, 3)], &[1, 2, 3]);
        clean.due(1, 0, 1, 3);
        assert_eq!(clean.verdict(), CLEAN);
        assert!(!clean.verdict().is_violated());
    }

    #[test]
    fn each_fault_of_the_log_is_found() {
        assert_eq!(judged(&[1, 2], &[(2, 1), (3, 2)], &[1]), Verdict { lost: 1, ..CLEAN });
        assert_eq!(judged(&[1, 2], &[], &[1, 1, 2]), Verdict { repeated: 1, ..CLEAN });
        assert_eq!(judged(&[1, 2], &[], &[2, 1]), Verdict { disordered: 1, ..CLEAN });
        assert_eq!(judged(&[1], &[(3, 1)], &[1]), Verdict { disordered: 1, ..CLEAN });
        let mut hole = Ledger::new(1, 1);
        hole.read(0, &[(1, None), (3, None)]);
        assert_eq!(hole.verdict(), Verdict { disordered: 1, ..CLEAN });
    }

    #[test]
    fn each_fault_of_the_live_frames_is_found() {
        assert_eq!(judged(&[1, 2, 2], &[], &[1, 2]), Verdict { repeated: 1, ..CLEAN });
        assert_eq!(judged(&[1, 3, 2], &[], &[1, 2, 3]), Verdict { disordered: 1, ..CLEAN });
        assert_eq!(judged(&[1, 3], &[], &[1, 2, 3]), Verdict { lost: 1, missing_live: 1, ..CLEAN });
        let mut end = ledger(&[1], &[], &[1, 2, 3]);
        end.due(1, 0, 1, 3);
        assert_eq!(end.verdict(), Verdict { lost: 2, missing_live: 2, ..CLEAN });
    }

    #[test]
    fn who_was_told_to_pull_lost_nothing() {
        let mut slow = ledger(&[1, 4], &[], &[1, 2, 3, 4]);
        slow.resync(1);
        assert_eq!(slow.verdict(), Verdict { missing_live: 2, ..CLEAN });
    }

    #[test]
    fn what_was_refused_is_not_missed_and_must_not_be_stored() {
        let mut refused = ledger(&[1, 3], &[], &[]);
        refused.unsettled(1, 2, true);
        assert_eq!(refused.verdict(), CLEAN);
        refused.read(0, &log(&[1, 2, 3]));
        assert_eq!(refused.verdict(), Verdict { stored_though_refused: 1, ..CLEAN });
        assert!(refused.verdict().is_violated());
    }
}
