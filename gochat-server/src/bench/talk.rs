//! Sending and receiving: `p2p` (pairs that write to each other) and `fanout` (one member writes to a group).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    Arguments, Fault,
    figures::{Figures, Latencies},
    line,
    pool::{Outbox, Pool},
    progress,
    target::{Crowd, Target},
    verify::Ledger,
    wire::{self, Stamp, Told},
};

/// Bytes of a text.
const TEXT_BYTES: usize = 128;
/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(20);

/// Pairs that write to each other.
pub async fn p2p(target: &Target, arguments: &Arguments) -> Result<Figures, Fault> {
    let clients = arguments.clients.unwrap_or(200).max(2) / 2 * 2;
    let crowd = target.provision(json!({"users": clients, "prefix": arguments.prefix("pair"), "pairs": true})).await?;
    let senders: Vec<(usize, usize)> = (0..clients).map(|client| (client, client / 2)).collect();
    let mut figures = Figures::of("p2p");
    figures.set("clients", clients);
    talk(target, arguments, &crowd, &senders, 1, figures).await
}

/// One member writes to a group whose members are all there.
pub async fn fanout(target: &Target, arguments: &Arguments) -> Result<Figures, Fault> {
    let members = arguments.members.unwrap_or(1000).max(2);
    let wanted = json!({"users": members, "prefix": arguments.prefix("group"), "groups": [{"members": members}]});
    let crowd = target.provision(wanted).await?;
    let mut figures = Figures::of("fanout");
    figures.set("members", members);
    talk(target, arguments, &crowd, &[(0, 0)], members - 1, figures).await
}

/// Runs a talk and fills in what it found. A message is in flight until it is acked and all its recipients have it.
async fn talk(
    target: &Target,
    arguments: &Arguments,
    crowd: &Crowd,
    senders: &[(usize, usize)],
    recipients: usize,
    mut figures: Figures,
) -> Result<Figures, Fault> {
    let before = target.usage();
    let mut pool = Pool::open(target.address, &crowd.tokens())?;
    let connected = target.usage();
    let mut talk = Talk::new(arguments, crowd, senders, recipients);
    let warm_up = Duration::from_secs_f64((arguments.seconds / 5.0).min(2.0));
    talk.run(&mut pool, Instant::now() + warm_up)?;
    talk.measured = Some(Measured::new());
    let (began, used) = (Instant::now(), target.usage());
    talk.run(&mut pool, began + Duration::from_secs_f64(arguments.seconds))?;
    let (seconds, used_then) = (began.elapsed().as_secs_f64(), target.usage());
    let Some(measured) = talk.measured.take() else { return Err("nothing was measured".into()) };
    talk.finish(&mut pool)?;

    figures.set("window", arguments.window);
    figures.set("seconds", seconds);
    figures.number("acked_per_s", measured.acked as f64 / seconds);
    figures.number("deliveries_per_s", measured.deliveries as f64 / seconds);
    figures.set("ack_ms", measured.ack.value());
    figures.set("e2e_ms", measured.end_to_end.value());
    if recipients > 1 {
        figures.set("last_member_ms", measured.last_member.value());
    }
    figures.set("refused", json!(measured.refused));
    if let (Some(used), Some(then)) = (used, used_then) {
        let micros = (then.cpu - used.cpu).as_micros() as f64;
        figures.number("server_cpu_us_per_msg", micros / (measured.acked as f64).max(1.0));
        figures.number("server_cpu_us_per_delivery", micros / (measured.deliveries as f64).max(1.0));
        figures.set("rss_bytes", then.resident);
    }
    if let (Some(before), Some(connected)) = (before, connected) {
        figures.number("rss_bytes_per_connection", connected.resident.saturating_sub(before.resident) as f64 / crowd.tokens.len() as f64);
    }
    if let Some(mut ledger) = talk.ledger.take() {
        drop(pool);
        read_back(target, crowd, senders, &mut ledger)?;
        let verdict = ledger.verdict();
        figures.set("lost", verdict.lost);
        figures.set("repeated", verdict.repeated);
        figures.set("disordered", verdict.disordered);
        figures.set("missing_live", verdict.missing_live);
    }
    Ok(figures)
}

/// Reads every conversation as one of its senders sees it.
fn read_back(target: &Target, crowd: &Crowd, senders: &[(usize, usize)], ledger: &mut Ledger) -> Result<(), Fault> {
    let mut read = HashMap::new();
    for (client, conversation) in senders {
        read.entry(*conversation).or_insert(*client);
    }
    for (conversation, client) in read {
        let mut lines = line::open(target.address, &[&crowd.tokens[client]])?;
        let log = lines[0].history(&crowd.conversations[conversation])?;
        let log: Vec<(i64, Option<Stamp>)> = log
            .iter()
            .map(|entry| (entry["seq"].as_i64().unwrap_or(0), entry["text"].as_str().and_then(|text| wire::stamp(text.as_bytes()))))
            .collect();
        ledger.read(conversation as u32, &log);
    }
    Ok(())
}

struct Talk {
    epoch: Instant,
    window: u32,
    /// Messages a second in all, whatever is answered (open loop).
    rate: Option<f64>,
    recipients: u32,
    senders: Vec<Sender>,
    /// By connection: its sender.
    sender_of: Vec<Option<usize>>,
    ledger: Option<Ledger>,
    measured: Option<Measured>,
    sent: u64,
    in_flight: u64,
    progress: progress::Line,
}

struct Sender {
    connection: usize,
    conversation: u32,
    conversation_id: String,
    next: u32,
    in_flight: u32,
    /// When each message that is not acked was sent.
    unacked: HashMap<u32, Duration>,
    /// Answers and deliveries that are still to come, by number.
    open: HashMap<u32, u32>,
}

struct Measured {
    acked: u64,
    deliveries: u64,
    refused: HashMap<String, u64>,
    ack: Latencies,
    end_to_end: Latencies,
    last_member: Latencies,
}

impl Measured {
    fn new() -> Self {
        Measured {
            acked: 0,
            deliveries: 0,
            refused: HashMap::new(),
            ack: Latencies::new(),
            end_to_end: Latencies::new(),
            last_member: Latencies::new(),
        }
    }
}

impl Talk {
    fn new(arguments: &Arguments, crowd: &Crowd, senders: &[(usize, usize)], recipients: usize) -> Self {
        let mut sender_of = vec![None; crowd.tokens.len()];
        for (index, (connection, _)) in senders.iter().enumerate() {
            sender_of[*connection] = Some(index);
        }
        let senders = senders.iter().map(|(connection, conversation)| Sender {
            connection: *connection,
            conversation: *conversation as u32,
            conversation_id: crowd.conversations[*conversation].clone(),
            next: 1,
            in_flight: 0,
            unacked: HashMap::new(),
            open: HashMap::new(),
        });
        Talk {
            epoch: Instant::now(),
            window: arguments.window,
            rate: arguments.rate,
            recipients: recipients as u32,
            senders: senders.collect(),
            sender_of,
            ledger: arguments.verify.then(Ledger::default),
            measured: None,
            sent: 0,
            in_flight: 0,
            progress: progress::Line::new(arguments.quiet()),
        }
    }

    /// Sends and receives until `end`.
    fn run(&mut self, pool: &mut Pool, end: Instant) -> Result<(), Fault> {
        let began = Instant::now();
        let sent_before = self.sent;
        let mut turn = 0;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let patience = match self.rate {
                Some(rate) => {
                    let due = (now.duration_since(began).as_secs_f64() * rate) as u64;
                    while self.sent - sent_before < due {
                        turn = (turn + 1) % self.senders.len();
                        self.send(&mut pool.outbox, turn);
                    }
                    Duration::from_millis(1)
                }
                None => {
                    if self.in_flight == 0 {
                        (0..self.senders.len()).for_each(|sender| self.fill(&mut pool.outbox, sender));
                    }
                    Duration::from_millis(100)
                }
            };
            pool.turn(patience.min(end - now), |outbox, who, payload, at| self.seen(outbox, who, payload, at, true))?;
            self.progress.show(|| format!("{} sent, {} in flight", self.sent, self.in_flight));
        }
    }

    /// Waits for what is still on its way.
    fn finish(&mut self, pool: &mut Pool) -> Result<(), Fault> {
        let end = Instant::now() + LAST_ANSWERS;
        while self.in_flight > 0 && Instant::now() < end {
            pool.turn(Duration::from_millis(100), |outbox, who, payload, at| self.seen(outbox, who, payload, at, false))?;
        }
        if self.in_flight > 0 && self.rate.is_none() {
            return Err(format!("{} messages were never answered or never reached everybody", self.in_flight).into());
        }
        Ok(())
    }

    fn fill(&mut self, outbox: &mut Outbox, sender: usize) {
        while self.senders[sender].in_flight < self.window {
            self.send(outbox, sender);
        }
    }

    fn send(&mut self, outbox: &mut Outbox, index: usize) {
        let sender = &mut self.senders[index];
        let number = sender.next;
        sender.next += 1;
        sender.in_flight += 1;
        self.in_flight += 1;
        self.sent += 1;
        let sent = self.epoch.elapsed();
        sender.unacked.insert(number, sent);
        sender.open.insert(number, 1 + self.recipients);
        let mut payload = format!(
            r#"{{"type":"send","id":{},"conversation_id":"{}","client_msg_id":"{}","text":""#,
            number + 1,
            sender.conversation_id,
            uuid::Uuid::now_v7()
        )
        .into_bytes();
        wire::write_stamped(&mut payload, Stamp { sent, sender: index as u32, number }, TEXT_BYTES);
        payload.extend_from_slice(b"\"}");
        outbox.send(sender.connection, &payload);
    }

    fn seen(&mut self, outbox: &mut Outbox, who: usize, payload: &[u8], at: Instant, go_on: bool) {
        let at = at.duration_since(self.epoch);
        match wire::Form::Json.read(payload) {
            Told::Message { stamp, .. } => {
                if let Some(measured) = &mut self.measured {
                    measured.deliveries += 1;
                    measured.end_to_end.add(at.saturating_sub(stamp.sent));
                }
                if let Some(ledger) = &mut self.ledger {
                    ledger.seen(who as u32, stamp);
                }
                if self.step(stamp.sender as usize, stamp.number, 1) {
                    if let Some(measured) = &mut self.measured {
                        measured.last_member.add(at.saturating_sub(stamp.sent));
                    }
                    self.next(outbox, stamp.sender as usize, go_on);
                }
            }
            Told::Ack { id, seq } => {
                let (Some(index), number) = (self.sender_of[who], id as u32 - 1) else { return };
                let sender = &mut self.senders[index];
                let sent = sender.unacked.remove(&number);
                if let Some(ledger) = &mut self.ledger {
                    ledger.acked(sender.conversation, seq, index as u32, number);
                }
                if let (Some(measured), Some(sent)) = (&mut self.measured, sent) {
                    measured.acked += 1;
                    measured.ack.add(at.saturating_sub(sent));
                }
                if self.step(index, number, 1) {
                    self.next(outbox, index, go_on);
                }
            }
            Told::Error { id, code } if id > 0 => {
                let (Some(index), number) = (self.sender_of[who], id as u32 - 1) else { return };
                self.senders[index].unacked.remove(&number);
                if let Some(ledger) = &mut self.ledger {
                    ledger.refused(index as u32, number);
                }
                if let Some(measured) = &mut self.measured {
                    *measured.refused.entry(String::from_utf8_lossy(code).into_owned()).or_default() += 1;
                }
                if self.step(index, number, 1 + self.recipients) {
                    self.next(outbox, index, go_on);
                }
            }
            _ => {}
        }
    }

    /// Counts answers and deliveries of a message; whether it is done with that.
    fn step(&mut self, sender: usize, number: u32, by: u32) -> bool {
        let Some(sender) = self.senders.get_mut(sender) else { return false };
        let Some(open) = sender.open.get_mut(&number) else { return false };
        *open = open.saturating_sub(by);
        let done = *open == 0;
        if done {
            sender.open.remove(&number);
            sender.in_flight -= 1;
            self.in_flight -= 1;
        }
        done
    }

    fn next(&mut self, outbox: &mut Outbox, sender: usize, go_on: bool) {
        if go_on && self.rate.is_none() {
            self.fill(outbox, sender);
        }
    }
}
