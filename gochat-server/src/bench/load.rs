//! The load: messages sent at a pace, what comes of them counted.
//!
//! Closed loop: each sender has `window` messages in flight. Open loop: messages leave at a rate, at random instants, whatever
//! is answered, and their latency counts from the instant that was meant.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use rand::RngExt as _;
use uuid::Uuid;

use super::{
    Fault,
    figures::Latencies,
    pool::{Outbox, Pool},
    progress,
    provision::Crowd,
    usage::{self, Usage},
    verify::Ledger,
    wire::{Form, Stamp, Told},
};

/// Bytes of a text.
pub const TEXT_BYTES: usize = 128;
/// A load without any progress for so long has ended.
const STALL: Duration = Duration::from_secs(10);
/// A sender that was refused pauses for so long.
const PAUSE: Duration = Duration::from_millis(50);

/// Who writes to whom.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// The users 0 and 1, 2 and 3, … write to each other; the first `senders` of them do.
    Pairs { senders: usize },
    /// The first `senders` members write to a group of all.
    Group { members: usize, senders: usize },
}

impl Shape {
    fn senders(self) -> usize {
        match self {
            Shape::Pairs { senders } | Shape::Group { senders, .. } => senders,
        }
    }

    /// How many receive a message live: its sender has the ack instead.
    fn hearers(self) -> u32 {
        match self {
            Shape::Pairs { .. } => 1,
            Shape::Group { members, .. } => members as u32 - 1,
        }
    }

    pub fn conversation(self, user: usize) -> usize {
        match self {
            Shape::Pairs { .. } => user / 2,
            Shape::Group { .. } => 0,
        }
    }

    fn voices(self) -> usize {
        match self {
            Shape::Pairs { .. } => 1,
            Shape::Group { senders, .. } => senders,
        }
    }

    fn voice(self, sender: usize) -> usize {
        match self {
            Shape::Pairs { .. } => 0,
            Shape::Group { .. } => sender,
        }
    }

    /// Whether `user` hears `sender`.
    fn hears(self, user: usize, sender: usize) -> bool {
        match self {
            Shape::Pairs { .. } => user == sender ^ 1,
            Shape::Group { .. } => user != sender,
        }
    }

    /// Whether a message is in flight until all have it, or until its ack: to a group, acks alone would let the deliveries pile up.
    fn until_heard(self) -> bool {
        matches!(self, Shape::Group { .. })
    }
}

/// How it is driven.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub window: usize,
    /// Messages a second in all: an open loop.
    pub rate: Option<f64>,
    pub warm_up: Duration,
    pub time: Duration,
}

/// What was counted while it was measured.
pub struct Measured {
    pub seconds: f64,
    pub acked: u64,
    pub deliveries: u64,
    pub ack: Latencies,
    pub end_to_end: Latencies,
    /// Until the last of the receivers had a message.
    pub last: Latencies,
    /// How often each code refused a message.
    pub refused: BTreeMap<String, u64>,
    pub resyncs: u64,
    /// What the server used.
    pub server: Option<(Usage, Usage)>,
    /// Share of one processor that the load itself took.
    pub generator_cpu: f64,
    /// Messages in all that nobody answered.
    pub unanswered: u64,
}

impl Measured {
    fn new() -> Self {
        Measured {
            seconds: 0.0,
            acked: 0,
            deliveries: 0,
            ack: Latencies::new(),
            end_to_end: Latencies::new(),
            last: Latencies::new(),
            refused: BTreeMap::new(),
            resyncs: 0,
            server: None,
            generator_cpu: 0.0,
            unanswered: 0,
        }
    }
}

/// A message that is not done.
struct Flight {
    sent: Duration,
    acked: bool,
    refused: bool,
    heard: u32,
}

struct Sender {
    conversation: Uuid,
    /// The number of the first flight; the others follow.
    first: u32,
    flights: VecDeque<Flight>,
}

pub struct Load<'a> {
    form: Form,
    shape: Shape,
    pace: Pace,
    usage: &'a dyn Fn() -> Option<Usage>,
    began: Instant,
    senders: Vec<Sender>,
    ledger: Ledger,
    measured: Measured,
    measuring: bool,
    sending: bool,
    /// Messages that are not done.
    open: u64,
    sent: u64,
    acked: u64,
    deliveries: u64,
    /// Senders that were refused, and when they go on.
    paused: VecDeque<(Duration, usize)>,
}

impl<'a> Load<'a> {
    pub fn new(form: Form, shape: Shape, pace: Pace, crowd: &Crowd, usage: &'a dyn Fn() -> Option<Usage>) -> Self {
        let sender = |user| Sender { conversation: crowd.conversations[shape.conversation(user)], first: 1, flights: VecDeque::new() };
        Load {
            form,
            shape,
            pace,
            usage,
            began: Instant::now(),
            senders: (0..shape.senders()).map(sender).collect(),
            ledger: Ledger::new(crowd.tokens.len(), shape.voices()),
            measured: Measured::new(),
            measuring: false,
            sending: true,
            open: 0,
            sent: 0,
            acked: 0,
            deliveries: 0,
            paused: VecDeque::new(),
        }
    }

    /// Runs it to its end: warm-up, measured time, then waits for what is under way.
    pub fn run(mut self, pool: &mut Pool, what: &'static str) -> Result<(Measured, Ledger), Fault> {
        let mut progress = progress::Line::new(what);
        if self.pace.rate.is_none() {
            for _ in 0..self.pace.window {
                (0..self.senders.len()).for_each(|sender| self.send(&mut pool.outbox, sender, None));
            }
        }
        let mut due = self.began.elapsed();
        self.send_until(pool, &mut progress, &mut due, self.pace.warm_up)?;

        self.measuring = true;
        let (before, own_before, began) = ((self.usage)(), usage::own(), Instant::now());
        self.send_until(pool, &mut progress, &mut due, self.pace.warm_up + self.pace.time)?;
        self.measuring = false;
        self.measured.seconds = began.elapsed().as_secs_f64();
        self.measured.server = before.zip((self.usage)());
        if let Some((before, after)) = own_before.zip(usage::own()) {
            self.measured.generator_cpu = (after.cpu - before.cpu).as_secs_f64() / self.measured.seconds;
        }

        self.sending = false;
        self.wait_for_the_rest(pool, &mut progress)?;
        Ok((self.measured, self.ledger))
    }

    fn send_until(&mut self, pool: &mut Pool, progress: &mut progress::Line, due: &mut Duration, end: Duration) -> Result<(), Fault> {
        let mut then = (self.acked, self.deliveries, Instant::now());
        let mut stalled = (self.acked + self.deliveries, Instant::now());
        loop {
            let now = self.began.elapsed();
            if now >= end {
                return Ok(());
            }
            if let Some(rate) = self.pace.rate {
                while *due <= now {
                    let sender = self.sent as usize % self.senders.len();
                    self.send(&mut pool.outbox, sender, Some(*due));
                    *due += Duration::from_secs_f64(-(1.0 - rand::rng().random::<f64>()).ln() / rate);
                }
                pool.wake_in(due.saturating_sub(self.began.elapsed()))?;
            }
            while self.paused.front().is_some_and(|(until, _)| *until <= now) {
                if let Some((_, sender)) = self.paused.pop_front() {
                    self.send(&mut pool.outbox, sender, None);
                }
            }
            let mut patience = if self.paused.is_empty() { Duration::from_millis(100) } else { Duration::from_millis(5) };
            if self.pace.rate.is_some() {
                patience = patience.min(due.saturating_sub(now));
            }
            pool.turn(patience.min(end - now), |outbox, who, payload, at| self.seen(outbox, who, payload, at))?;
            let done = self.acked + self.deliveries;
            if done != stalled.0 {
                stalled = (done, Instant::now());
            } else if stalled.1.elapsed() > STALL {
                return Err(format!("nothing happened for {} s with {} messages in flight", STALL.as_secs(), self.open).into());
            }
            progress.show(|| {
                let seconds = then.2.elapsed().as_secs_f64();
                let (acked, deliveries) = ((self.acked - then.0) as f64 / seconds, (self.deliveries - then.1) as f64 / seconds);
                then = (self.acked, self.deliveries, Instant::now());
                format!("{acked:.0} acked/s, {deliveries:.0} deliveries/s, {} in flight", self.open)
            });
        }
    }

    /// Until every message is acked or refused, and everybody has what was acked; or nothing happens any more.
    fn wait_for_the_rest(&mut self, pool: &mut Pool, progress: &mut progress::Line) -> Result<(), Fault> {
        let mut last = (u64::MAX, Instant::now());
        loop {
            let expected = self.acked * u64::from(self.shape.hearers());
            if self.open == 0 && self.deliveries >= expected {
                break;
            }
            let done = self.acked + self.deliveries;
            if done != last.0 {
                last = (done, Instant::now());
            } else if last.1.elapsed() > STALL / 2 {
                break;
            }
            pool.turn(Duration::from_millis(100), |outbox, who, payload, at| self.seen(outbox, who, payload, at))?;
            progress.show(|| format!("waiting for the rest: {} in flight, {} of {expected} deliveries", self.open, self.deliveries));
        }
        for (user, sender) in self.senders.iter().enumerate() {
            for (number, flight) in (sender.first..).zip(&sender.flights) {
                if !flight.acked && !flight.refused {
                    self.measured.unanswered += 1;
                    self.ledger.unsettled(user as u32, number, false);
                }
            }
        }
        for (user, sender) in self.senders.iter().enumerate() {
            let sent = sender.first + sender.flights.len() as u32 - 1;
            for receiver in (0..pool.len()).filter(|receiver| self.shape.hears(*receiver, user)) {
                self.ledger.due(receiver, self.shape.voice(user), user as u32, sent);
            }
        }
        Ok(())
    }

    fn send(&mut self, outbox: &mut Outbox, user: usize, meant: Option<Duration>) {
        let sent = meant.unwrap_or_else(|| self.began.elapsed());
        let sender = &mut self.senders[user];
        let number = sender.first + sender.flights.len() as u32;
        sender.flights.push_back(Flight { sent, acked: false, refused: false, heard: 0 });
        let (form, conversation) = (self.form, sender.conversation);
        // The request's id is 1 above the message's number: 1 was the authentication.
        outbox.send(user, |out| {
            let stamp = Stamp { sent, sender: user as u32, number };
            form.write_send(out, u64::from(number) + 1, conversation, Uuid::now_v7(), stamp, TEXT_BYTES);
        });
        self.open += 1;
        self.sent += 1;
    }

    fn seen(&mut self, outbox: &mut Outbox, who: usize, payload: &[u8], at: Instant) {
        let at = at.duration_since(self.began);
        match self.form.read(payload) {
            Told::Message { stamp, .. } => self.heard(outbox, who, stamp, at),
            Told::Ack { id, seq } => self.acked(outbox, who, id as u32 - 1, seq, at),
            Told::Error { id, code } if id > 1 => self.refused(who, id as u32 - 1, code, at),
            Told::Resync => {
                self.measured.resyncs += 1;
                self.ledger.resync(who);
            }
            _ => {}
        }
    }

    fn heard(&mut self, outbox: &mut Outbox, who: usize, stamp: Stamp, at: Duration) {
        let user = stamp.sender as usize;
        if !self.shape.hears(who, user) || user >= self.senders.len() {
            return;
        }
        self.deliveries += 1;
        self.ledger.seen(who, self.shape.voice(user), stamp);
        if self.measuring {
            self.measured.deliveries += 1;
            self.measured.end_to_end.add(at.saturating_sub(stamp.sent));
        }
        let hearers = self.shape.hearers();
        let Some(flight) = self.flight(user, stamp.number) else { return };
        flight.heard += 1;
        if flight.heard == hearers {
            let acked = flight.acked;
            if self.measuring {
                self.measured.last.add(at.saturating_sub(stamp.sent));
            }
            if self.shape.until_heard() && acked {
                self.done(user);
                self.next(outbox, user);
            }
        }
    }

    fn acked(&mut self, outbox: &mut Outbox, user: usize, number: u32, seq: i64, at: Duration) {
        let (hearers, conversation) = (self.shape.hearers(), self.shape.conversation(user));
        let Some(flight) = self.flight(user, number) else { return };
        if std::mem::replace(&mut flight.acked, true) {
            return;
        }
        let (sent, heard) = (flight.sent, flight.heard);
        self.acked += 1;
        self.ledger.acked(conversation, seq, user as u32, number);
        if self.measuring {
            self.measured.acked += 1;
            self.measured.ack.add(at.saturating_sub(sent));
        }
        if !self.shape.until_heard() || heard >= hearers {
            self.done(user);
            self.next(outbox, user);
        }
    }

    fn refused(&mut self, user: usize, number: u32, code: &[u8], at: Duration) {
        let Some(flight) = self.flight(user, number) else { return };
        flight.refused = true;
        let code = String::from_utf8_lossy(code).into_owned();
        // These say that nothing was taken; others that it is not known.
        self.ledger.unsettled(user as u32, number, matches!(code.as_str(), "OVERLOADED" | "RATE_LIMITED"));
        if self.measuring {
            *self.measured.refused.entry(code).or_default() += 1;
        }
        self.done(user);
        if self.pace.rate.is_none() {
            self.paused.push_back((at + PAUSE, user));
        }
    }

    fn flight(&mut self, user: usize, number: u32) -> Option<&mut Flight> {
        let sender = self.senders.get_mut(user)?;
        sender.flights.get_mut(number.checked_sub(sender.first)? as usize)
    }

    /// One more message of this sender is done.
    fn done(&mut self, user: usize) {
        self.open -= 1;
        let (hearers, until_heard) = (self.shape.hearers(), self.shape.until_heard());
        let sender = &mut self.senders[user];
        while sender.flights.front().is_some_and(|flight| flight.refused || flight.acked && (!until_heard || flight.heard >= hearers)) {
            sender.flights.pop_front();
            sender.first += 1;
        }
    }

    fn next(&mut self, outbox: &mut Outbox, user: usize) {
        if self.sending && self.pace.rate.is_none() {
            self.send(outbox, user, None);
        }
    }
}
