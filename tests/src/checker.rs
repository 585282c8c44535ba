//! The history checker: judges what clients saw against what the server holds in the end.
//!
//! Crash and overload tests record [`Event`]s while they run, read every log afterwards and call [`check`]. The checker itself
//! is proved by seeded bugs: a small model of a chat server makes histories with and without them.
//!
//! | broken promise | what is found |
//! |---|---|
//! | [`Durable`](Promise::Durable) | an ack or a push names an entry that is not there, or is another one |
//! | [`Dense`](Promise::Dense) | a log is not 1, 2, 3 … |
//! | [`Once`](Promise::Once) | a message is there twice, one id has two acks or two bodies |
//! | [`Ordered`](Promise::Ordered) | two messages of a sender are stored in another order than they were sent in |
//! | [`Refused`](Promise::Refused) | a message is there although every attempt to send it was refused |
//! | [`Known`](Promise::Known) | there is a message that its sender never sent |
//! | [`Pushed`](Promise::Pushed) | an absent member has no push for a message, or two |

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::SocketAddr,
};

use http::Method;
use serde_json::Value;

use crate::client::http;

/// A message as its sender names it: sender, conversation, client message id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub sender: String,
    pub conversation: String,
    pub client_msg_id: String,
}

/// What a client did or saw. Events of one sender stand in the order in which they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An attempt to send is about to leave.
    Sent { name: Name, body: String },
    /// An attempt with this body was acked.
    Acked { name: Name, body: String, seq: i64 },
    /// An attempt was refused for certain: the server says that it stored nothing.
    Refused { name: Name },
    /// A connected device was told of an entry.
    Received { name: Name, body: String, seq: i64 },
    /// A push was recorded for a user who was away.
    PushRecorded { user: String, conversation: String, seq: i64 },
}

/// An entry of a log. Events of the server have no body that a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub seq: i64,
    pub sender: String,
    pub client_msg_id: String,
    pub body: Option<String>,
}

/// What is there in the end.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Every entry of each conversation, as it is read from 1 on.
    pub logs: BTreeMap<String, Vec<Entry>>,
    /// Members who were away all the time: each must have exactly one push for every message of others in these seqs.
    pub away: Vec<Away>,
}

/// Somebody who was never connected.
#[derive(Clone, Debug)]
pub struct Away {
    pub user: String,
    pub conversation: String,
    /// The first seq whose push must be there: push logs answer with their newest entries only.
    pub from: i64,
}

/// The promises that a history can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    Durable,
    Dense,
    Once,
    Ordered,
    Refused,
    Known,
    Pushed,
}

/// The first promise that is broken, with the events that show it.
#[derive(Clone, Debug)]
pub struct Violation {
    pub promise: Promise,
    pub what: String,
    pub history: Vec<Event>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}: {}", self.promise, self.what)?;
        self.history.iter().try_for_each(|event| writeln!(f, "  {event:?}"))
    }
}

/// What was looked at: a test that loads a server asserts that this is a lot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub sent: usize,
    pub acked: usize,
    pub refused: usize,
    /// Sent, and neither acked nor refused for certain: there once or not at all.
    pub unknown: usize,
    pub received: usize,
    pub stored: usize,
}

/// The attempts to send one message.
#[derive(Default)]
struct Attempts {
    bodies: BTreeSet<String>,
    count: usize,
    refused: usize,
    /// Places of the first and the last attempt among all events.
    span: Option<(usize, usize)>,
    acks: BTreeSet<(i64, String)>,
}

/// Judges a history.
pub fn check(history: &[Event], dump: &Dump) -> Result<Report, Box<Violation>> {
    let checker = Checker { history, dump, attempts: attempts(history) };
    checker.dense()?;
    checker.durable()?;
    checker.once()?;
    checker.known_and_refused()?;
    checker.ordered()?;
    checker.pushed()?;
    let mut report = Report { stored: dump.logs.values().map(Vec::len).sum(), ..Report::default() };
    for attempts in checker.attempts.values() {
        report.sent += usize::from(attempts.count > 0);
        report.acked += usize::from(!attempts.acks.is_empty());
        let refused = attempts.acks.is_empty() && attempts.refused >= attempts.count;
        report.refused += usize::from(refused);
        report.unknown += usize::from(attempts.acks.is_empty() && !refused);
    }
    report.received = history.iter().filter(|event| matches!(event, Event::Received { .. })).count();
    Ok(report)
}

fn attempts(history: &[Event]) -> HashMap<&Name, Attempts> {
    let mut all: HashMap<&Name, Attempts> = HashMap::new();
    for (at, event) in history.iter().enumerate() {
        match event {
            Event::Sent { name, body } => {
                let attempts = all.entry(name).or_default();
                attempts.bodies.insert(body.clone());
                attempts.count += 1;
                attempts.span = Some((attempts.span.map_or(at, |(first, _)| first), at));
            }
            Event::Acked { name, body, seq } => drop(all.entry(name).or_default().acks.insert((*seq, body.clone()))),
            Event::Refused { name } => all.entry(name).or_default().refused += 1,
            Event::Received { .. } | Event::PushRecorded { .. } => {}
        }
    }
    all
}

struct Checker<'a> {
    history: &'a [Event],
    dump: &'a Dump,
    attempts: HashMap<&'a Name, Attempts>,
}

impl Checker<'_> {
    fn broken<T>(&self, promise: Promise, what: String, about: &[&Name]) -> Result<T, Box<Violation>> {
        let concerns = |event: &&Event| match event {
            Event::Sent { name, .. } | Event::Acked { name, .. } | Event::Refused { name } | Event::Received { name, .. } => about.contains(&name),
            Event::PushRecorded { .. } => false,
        };
        Err(Box::new(Violation { promise, what, history: self.history.iter().filter(concerns).take(50).cloned().collect() }))
    }

    fn dense(&self) -> Result<(), Box<Violation>> {
        for (conversation, log) in &self.dump.logs {
            if let Some((at, entry)) = log.iter().enumerate().find(|(at, entry)| entry.seq != *at as i64 + 1) {
                let what = format!("entry {} of {conversation} has seq {}", at + 1, entry.seq);
                return self.broken(Promise::Dense, what, &[]);
            }
        }
        Ok(())
    }

    /// The entry that an ack or a push names.
    fn entry(&self, name: &Name, seq: i64) -> Option<&Entry> {
        let log = self.dump.logs.get(&name.conversation)?;
        let entry = log.get(usize::try_from(seq - 1).ok()?)?;
        (entry.sender == name.sender && entry.client_msg_id == name.client_msg_id).then_some(entry)
    }

    fn durable(&self) -> Result<(), Box<Violation>> {
        for event in self.history {
            let (name, body, seq, told) = match event {
                Event::Acked { name, body, seq } => (name, body, *seq, "acked"),
                Event::Received { name, body, seq } => (name, body, *seq, "pushed"),
                _ => continue,
            };
            match self.entry(name, seq) {
                None => {
                    let what = format!("{} was {told} with seq {seq}, and something else or nothing is there", name.client_msg_id);
                    return self.broken(Promise::Durable, what, &[name]);
                }
                Some(entry) if entry.body.as_ref() != Some(body) => {
                    let what = format!("{} was {told} as {body:?} and is stored as {:?}", name.client_msg_id, entry.body);
                    return self.broken(Promise::Once, what, &[name]);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn once(&self) -> Result<(), Box<Violation>> {
        for (name, attempts) in &self.attempts {
            if attempts.acks.len() > 1 {
                return self.broken(Promise::Once, format!("{} has the acks {:?}", name.client_msg_id, attempts.acks), &[name]);
            }
        }
        for (conversation, log) in &self.dump.logs {
            let mut seen = HashMap::new();
            for entry in log.iter().filter(|entry| entry.body.is_some()) {
                if let Some(first) = seen.insert((&entry.sender, &entry.client_msg_id), entry.seq) {
                    let name = named(conversation, entry);
                    let what = format!("{} is there as {first} and as {}", entry.client_msg_id, entry.seq);
                    return self.broken(Promise::Once, what, &[&name]);
                }
            }
        }
        Ok(())
    }

    fn known_and_refused(&self) -> Result<(), Box<Violation>> {
        for (conversation, log) in &self.dump.logs {
            for entry in log {
                let Some(body) = &entry.body else { continue };
                let name = named(conversation, entry);
                match self.attempts.get(&name) {
                    Some(attempts) if !attempts.bodies.contains(body) => {
                        return self.broken(Promise::Known, format!("{} is stored with the body {body:?}", entry.client_msg_id), &[&name]);
                    }
                    Some(attempts) if attempts.acks.is_empty() && attempts.refused >= attempts.count => {
                        return self.broken(Promise::Refused, format!("{} was refused and is there", entry.client_msg_id), &[&name]);
                    }
                    Some(_) => {}
                    None => return self.broken(Promise::Known, format!("nobody sent {}", entry.client_msg_id), &[&name]),
                }
            }
        }
        Ok(())
    }

    /// If the last attempt of one message left before the first attempt of another, it is stored before it.
    fn ordered(&self) -> Result<(), Box<Violation>> {
        for (conversation, log) in &self.dump.logs {
            let mut latest: HashMap<&str, (usize, Name)> = HashMap::new();
            for entry in log.iter().filter(|entry| entry.body.is_some()) {
                let name = named(conversation, entry);
                let Some((first, last)) = self.attempts.get(&name).and_then(|attempts| attempts.span) else { continue };
                match latest.get(entry.sender.as_str()) {
                    Some((began, other)) if last < *began => {
                        let what =
                            format!("{} was sent before {} and is stored behind it, at {}", name.client_msg_id, other.client_msg_id, entry.seq);
                        return self.broken(Promise::Ordered, what, &[&name, other]);
                    }
                    Some((began, _)) if *began > first => {}
                    _ => drop(latest.insert(&entry.sender, (first, name))),
                }
            }
        }
        Ok(())
    }

    fn pushed(&self) -> Result<(), Box<Violation>> {
        let mut pushes: HashMap<(&str, &str, i64), usize> = HashMap::new();
        for event in self.history {
            if let Event::PushRecorded { user, conversation, seq } = event {
                let count = pushes.entry((user, conversation, *seq)).or_default();
                *count += 1;
                if *count > 1 {
                    return self.broken(Promise::Pushed, format!("{user} has two pushes for {seq} of {conversation}"), &[]);
                }
            }
        }
        for Away { user, conversation, from } in &self.dump.away {
            let log = self.dump.logs.get(conversation).map_or(&[][..], Vec::as_slice);
            let wanted = log.iter().filter(|entry| entry.seq >= *from && entry.sender != *user && entry.body.is_some());
            if let Some(entry) = wanted.into_iter().find(|entry| !pushes.contains_key(&(user.as_str(), conversation.as_str(), entry.seq))) {
                let what = format!("{user} has no push for {} of {conversation}", entry.seq);
                return self.broken(Promise::Pushed, what, &[&named(conversation, entry)]);
            }
        }
        Ok(())
    }
}

fn named(conversation: &str, entry: &Entry) -> Name {
    Name { sender: entry.sender.clone(), conversation: conversation.to_owned(), client_msg_id: entry.client_msg_id.clone() }
}

/// A log as the checker reads it.
pub async fn read_log(address: SocketAddr, token: &str, conversation: &str) -> Vec<Entry> {
    let mut log: Vec<Entry> = Vec::new();
    loop {
        let after = log.last().map_or(0, |entry| entry.seq);
        let path = format!("/api/v1/conversations/{conversation}/messages?after={after}&limit=200");
        let page = http(address, Method::GET, &path, Some(token), &[], None).await.expect(200);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        log.extend(page["messages"].as_array().unwrap().iter().map(|message| Entry {
            seq: message["seq"].as_i64().unwrap(),
            sender: text(&message["sender_id"]),
            client_msg_id: text(&message["client_msg_id"]),
            body: (message["kind"] == "text").then(|| text(&message["text"])),
        }));
        if !page["more"].as_bool().unwrap() {
            return log;
        }
    }
}

mod proof {
    //! The checker is right about histories of which the answer is known.

    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    /// What the model server does wrong.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Bug {
        Nothing,
        /// The ack leaves before the commit, and the commit never comes.
        AckBeforeCommit,
        /// A crash takes the last stored message with it.
        LostAtTheTail,
        /// A seq is taken and its message is not stored.
        Gap,
        /// The seq of a lost message is given again, to another one.
        SeqReused,
        /// The ack names the seq of the entry before.
        WrongSeqInAck,
        /// A repeat is stored again.
        RepeatStored,
        /// A repeat is acked with a new seq, as if it were new.
        RepeatAckedAnew,
        /// Another body under a known id is answered as success.
        ConflictAcked,
        /// Another body under a known id takes the place of the first.
        ConflictOverwrites,
        /// A message overtakes the one before it.
        Overtaken,
        /// What was refused is stored all the same.
        StoredThoughRefused,
        /// A message is stored under another sender.
        WrongSender,
        /// A body is changed on its way into the store.
        BodyChanged,
        /// A device is told of a message that is then not stored.
        PushedBeforeCommit,
        /// A device is told another body than the one that is stored.
        WrongBodyPushed,
        /// A push job is made twice.
        PushedTwice,
        /// No push job is made for a message.
        PushForgotten,
    }

    use Bug::*;

    const BUGS: &[(Bug, &[Promise])] = &[
        (AckBeforeCommit, &[Promise::Durable]),
        (LostAtTheTail, &[Promise::Durable]),
        (Gap, &[Promise::Dense]),
        (SeqReused, &[Promise::Durable]),
        (WrongSeqInAck, &[Promise::Durable]),
        (RepeatStored, &[Promise::Once]),
        (RepeatAckedAnew, &[Promise::Once, Promise::Durable]),
        (ConflictAcked, &[Promise::Once]),
        (ConflictOverwrites, &[Promise::Once]),
        (Overtaken, &[Promise::Ordered]),
        (StoredThoughRefused, &[Promise::Refused]),
        (WrongSender, &[Promise::Durable, Promise::Known]),
        (BodyChanged, &[Promise::Once, Promise::Known]),
        (PushedBeforeCommit, &[Promise::Durable]),
        (WrongBodyPushed, &[Promise::Once]),
        (PushedTwice, &[Promise::Pushed]),
        (PushForgotten, &[Promise::Pushed]),
    ];

    const SENDERS: [&str; 3] = ["ana", "bo", "cy"];
    const ABSENT: &str = "dee";
    const CONVERSATIONS: [&str; 2] = ["lunch", "work"];

    /// A server and its clients, one step at a time.
    struct Model {
        random: SmallRng,
        bug: Bug,
        /// Whether the bug has struck: in some runs it has no occasion to.
        struck: bool,
        /// What no attempt stores any more, so that a repeat does not make good what the bug has done.
        lost: Option<Name>,
        history: Vec<Event>,
        dump: Dump,
    }

    impl Model {
        /// The bug strikes once, somewhere behind the first few steps.
        fn strikes(&mut self, bug: Bug) -> bool {
            let now = self.bug == bug && !self.struck && self.history.len() > 20 && self.random.random_ratio(1, 3);
            self.struck |= now;
            now
        }

        fn log(&mut self, name: &Name) -> &mut Vec<Entry> {
            self.dump.logs.get_mut(&name.conversation).unwrap()
        }

        fn store(&mut self, name: &Name, body: &str) -> i64 {
            let sender = if self.strikes(WrongSender) { ABSENT } else { &name.sender };
            let skip = i64::from(self.strikes(Gap));
            let body = if self.strikes(BodyChanged) { "changed" } else { body }.to_owned();
            let seq = self.log(name).last().map_or(1, |entry| entry.seq + 1) + skip;
            let entry = Entry { seq, sender: sender.into(), client_msg_id: name.client_msg_id.clone(), body: Some(body.clone()) };
            self.log(name).push(entry);
            if self.strikes(PushedTwice) {
                self.push(name, seq);
            }
            if !self.strikes(PushForgotten) {
                self.push(name, seq);
            }
            if self.random.random_ratio(1, 2) {
                let body = if self.strikes(WrongBodyPushed) { "another".into() } else { body };
                self.history.push(Event::Received { name: Name { sender: sender.into(), ..name.clone() }, body, seq });
            }
            seq
        }

        fn acked(&self, wanted: &Name) -> bool {
            self.history.iter().any(|event| matches!(event, Event::Acked { name, .. } if name == wanted))
        }

        fn push(&mut self, name: &Name, seq: i64) {
            self.history.push(Event::PushRecorded { user: ABSENT.into(), conversation: name.conversation.clone(), seq });
        }

        /// One attempt: the answer is the seq of an ack, a refusal, or nothing.
        fn attempt(&mut self, name: &Name, body: &str) -> Option<Result<i64, ()>> {
            let struck = self.struck;
            let open = self.history.iter().fold(0, |open, event| match event {
                Event::Sent { name: other, .. } if other == name => open + 1,
                Event::Refused { name: other } if other == name => open - 1,
                _ => open,
            });
            self.history.push(Event::Sent { name: name.clone(), body: body.into() });
            if self.lost.as_ref() == Some(name) {
                return Some(Err(()));
            }
            match self.random.random_range(0..10) {
                0 => return None,
                1 => {
                    if open == 0 && self.strikes(StoredThoughRefused) {
                        self.store(name, body);
                        self.lost = Some(name.clone());
                    }
                    return Some(Err(()));
                }
                _ => {}
            }
            let known = self.log(name).iter().find(|entry| entry.sender == name.sender && entry.client_msg_id == name.client_msg_id).cloned();
            let seq = match known {
                Some(entry) if entry.body.as_deref() == Some(body) => {
                    if self.strikes(RepeatStored) {
                        self.store(name, body);
                    }
                    if self.strikes(RepeatAckedAnew) { entry.seq + 1 } else { entry.seq }
                }
                Some(entry) => {
                    if self.strikes(ConflictAcked) {
                        entry.seq
                    } else if self.acked(name) && self.strikes(ConflictOverwrites) {
                        let at = usize::try_from(entry.seq - 1).unwrap();
                        self.log(name)[at].body = Some(body.into());
                        entry.seq
                    } else {
                        return Some(Err(()));
                    }
                }
                None if self.strikes(AckBeforeCommit) => {
                    self.lost = Some(name.clone());
                    self.log(name).last().map_or(1, |entry| entry.seq + 1)
                }
                None => {
                    if self.strikes(PushedBeforeCommit) {
                        let seq = self.log(name).len() as i64 + 1;
                        self.history.push(Event::Received { name: name.clone(), body: body.into(), seq });
                        self.lost = Some(name.clone());
                        return None;
                    }
                    self.store(name, body)
                }
            };
            // An answer may be lost on its way.
            if struck == self.struck && self.random.random_ratio(1, 8) {
                return None;
            }
            Some(Ok(if self.strikes(WrongSeqInAck) { seq - 1 } else { seq }))
        }

        /// A client sends one message until it is acked or it gives up.
        fn talk(&mut self, number: usize) {
            let pick = |random: &mut SmallRng, from: &[&str]| from[random.random_range(0..from.len())].to_owned();
            let (sender, conversation) = (pick(&mut self.random, &SENDERS), pick(&mut self.random, &CONVERSATIONS));
            let name = Name { sender, conversation, client_msg_id: format!("id {number}") };
            let body = format!("body {number}");
            for _ in 0..self.random.random_range(1..4) {
                match self.attempt(&name, &body) {
                    Some(Ok(seq)) => {
                        self.history.push(Event::Acked { name: name.clone(), body: body.clone(), seq });
                        break;
                    }
                    Some(Err(())) => self.history.push(Event::Refused { name: name.clone() }),
                    None => {}
                }
            }
            // Later the same id again, with the same body or another one.
            if self.random.random_ratio(1, 3) {
                let body = if self.random.random_ratio(1, 2) { body } else { "other".to_owned() };
                match self.attempt(&name, &body) {
                    Some(Ok(seq)) => self.history.push(Event::Acked { name: name.clone(), body, seq }),
                    Some(Err(())) => self.history.push(Event::Refused { name: name.clone() }),
                    None => {}
                }
            }
        }

        /// Faults that strike the store itself, once the clients are done.
        fn damage(&mut self) {
            let acked: Vec<Name> =
                self.history.iter().filter_map(|event| if let Event::Acked { name, .. } = event { Some(name.clone()) } else { None }).collect();
            match self.bug {
                LostAtTheTail => {
                    for log in self.dump.logs.values_mut() {
                        let lost = log.last().is_some_and(|last| acked.iter().any(|name| name.client_msg_id == last.client_msg_id));
                        if lost {
                            log.pop();
                            self.struck = true;
                        }
                    }
                }
                SeqReused => {
                    for log in self.dump.logs.values_mut() {
                        let at = log.iter().position(|entry| acked.iter().any(|name| name.client_msg_id == entry.client_msg_id));
                        if let (Some(at), true) = (at, log.len() > 1) {
                            log.remove(at);
                            (1..).zip(log.iter_mut()).for_each(|(seq, entry)| entry.seq = seq);
                            self.struck = true;
                        }
                    }
                }
                Overtaken => {
                    for (conversation, log) in &mut self.dump.logs {
                        let Some(at) = (2..log.len()).find(|&at| log[at - 1].sender == log[at].sender) else { continue };
                        log.swap(at - 1, at);
                        (1..).zip(log.iter_mut()).for_each(|(seq, entry)| entry.seq = seq);
                        // Everybody was told the seqs as they are now.
                        for entry in &log[at - 1..=at] {
                            let moved = named(conversation, entry);
                            for event in &mut self.history {
                                match event {
                                    Event::Acked { name, seq, .. } | Event::Received { name, seq, .. } if *name == moved => *seq = entry.seq,
                                    _ => {}
                                }
                            }
                        }
                        self.struck = true;
                    }
                }
                _ => {}
            }
        }
    }

    fn run(seed: u64, bug: Bug) -> (bool, Result<Report, Box<Violation>>) {
        let mut model = Model { random: SmallRng::seed_from_u64(seed), bug, struck: false, lost: None, history: Vec::new(), dump: Dump::default() };
        for conversation in CONVERSATIONS {
            let created = Entry { seq: 1, sender: "ana".into(), client_msg_id: "made".into(), body: None };
            model.dump.logs.insert(conversation.into(), vec![created]);
            model.dump.away.push(Away { user: ABSENT.into(), conversation: conversation.into(), from: 1 });
        }
        for number in 0..150 {
            model.talk(number);
        }
        model.damage();
        (model.struck, check(&model.history, &model.dump))
    }

    #[test]
    fn what_a_right_server_does_is_found_right() {
        let mut refused = 0;
        for seed in 0..300 {
            let (_, outcome) = run(seed, Bug::Nothing);
            let report = outcome.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
            assert!(report.acked > 80 && report.unknown > 0 && report.received > 30, "{report:?}");
            refused += report.refused;
        }
        assert!(refused > 300, "only {refused} messages were refused for good");
    }

    #[test]
    fn every_seeded_bug_is_found_whenever_it_strikes() {
        for (bug, promises) in BUGS {
            let mut struck = 0;
            for seed in 0..300 {
                let (hit, outcome) = run(seed, *bug);
                if hit {
                    struck += 1;
                    let violation = outcome.expect_err(&format!("{bug:?} escaped with seed {seed}"));
                    assert!(promises.contains(&violation.promise), "{bug:?} with seed {seed} was taken for {violation}");
                }
            }
            assert!(struck >= 20, "{bug:?} struck {struck} times only");
        }
    }
}
