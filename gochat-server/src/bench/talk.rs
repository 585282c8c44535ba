//! `p2p` (pairs that write to each other) and `fanout` (members of one group write to it).

use std::{cell::RefCell, time::Duration};

use serde_json::json;
use uuid::Uuid;

use super::{
    Arguments, Fault,
    figures::Figures,
    limits::Limits,
    line,
    load::{Load, Measured, Pace, Shape},
    pool::Pool,
    provision::{self, Crowd, Wanted},
    target::Target,
    verify::Ledger,
    wire::Form,
};

/// Pairs that write to each other.
pub async fn p2p(target: &Target, arguments: &Arguments, limits: &Limits) -> Result<Figures, Fault> {
    let senders = arguments.clients.unwrap_or(200).max(1);
    let wanted = Wanted { users: senders.next_multiple_of(2), pairs: true, group: false };
    let crowd = provision::provision(target, "p", wanted).await?;
    let mut figures = Figures::of("p2p");
    figures.set("clients", senders);
    let measured = talk(target, arguments, &crowd, Shape::Pairs { senders }, &mut figures)?;
    let limit = limits.known_appends(senders * arguments.window).filter(|_| arguments.rate.is_none());
    figures.share(measured.acked as f64 / measured.seconds, limit);
    Ok(figures)
}

/// Members of one group write to it, and all of them are there.
pub async fn fanout(target: &Target, arguments: &Arguments, limits: &Limits) -> Result<Figures, Fault> {
    let members = arguments.members.max(2);
    let senders = arguments.clients.unwrap_or(1).clamp(1, members);
    let crowd = provision::provision(target, "f", Wanted { users: members, pairs: false, group: true }).await?;
    let mut figures = Figures::of("fanout");
    figures.set("members", members);
    figures.set("clients", senders);
    let measured = talk(target, arguments, &crowd, Shape::Group { members, senders }, &mut figures)?;
    figures.set("last_member_ms", measured.last.value());
    let limit = limits.known_deliveries(members, senders * arguments.window).filter(|_| arguments.rate.is_none());
    figures.share(measured.deliveries as f64 / measured.seconds, limit);
    Ok(figures)
}

/// The pace that the arguments ask for.
pub fn pace(arguments: &Arguments) -> Pace {
    let time = Duration::from_secs_f64(arguments.seconds);
    Pace { window: arguments.window.max(1), rate: arguments.rate, warm_up: (time / 5).min(Duration::from_secs(2)), time }
}

fn talk(target: &Target, arguments: &Arguments, crowd: &Crowd, shape: Shape, figures: &mut Figures) -> Result<Measured, Fault> {
    let before = target.usage();
    let mut pool = Pool::open(&target.addresses, arguments.protocol, &crowd.tokens())?;
    let connected = target.usage();
    // The load asks when the warm-up ends and when the measured time does.
    let by_process = RefCell::new(Vec::new());
    let usage = || {
        by_process.borrow_mut().push(target.usage_by_process());
        target.usage()
    };
    let load = Load::new(arguments.protocol, shape, pace(arguments), crowd, &usage);
    let (measured, mut ledger) = load.run(&mut pool, figures.scenario())?;
    drop(pool);

    figures.set("protocol", arguments.protocol.subprotocol());
    figures.set("window", arguments.window);
    figures.set("rate", arguments.rate);
    figures.number("seconds", measured.seconds);
    figures.number("acked_per_s", measured.acked as f64 / measured.seconds);
    figures.number("deliveries_per_s", measured.deliveries as f64 / measured.seconds);
    figures.set("ack_ms", measured.ack.value());
    figures.set("e2e_ms", measured.end_to_end.value());
    figures.set("refused", json!(measured.refused));
    figures.set("unanswered", measured.unanswered);
    figures.set("resyncs", measured.resyncs);
    figures.number("generator_cpu_percent", measured.generator_cpu * 100.0);
    if let Some((used, then)) = measured.server {
        let micros = (then.cpu - used.cpu).as_secs_f64() * 1e6;
        figures.number("server_cpu_percent", micros / measured.seconds / 1e4);
        figures.number("server_cpu_us_per_msg", micros / (measured.acked as f64).max(1.0));
        figures.number("server_cpu_us_per_delivery", micros / (measured.deliveries as f64).max(1.0));
        figures.set("rss_bytes", then.resident);
        if let [first, .., last] = &by_process.borrow()[..] {
            for ((name, first), (_, last)) in first.iter().zip(last) {
                figures.number(&format!("{name}_cpu_us_per_msg"), (last.cpu - first.cpu).as_secs_f64() * 1e6 / (measured.acked as f64).max(1.0));
            }
        }
    }
    if let Some((before, connected)) = before.zip(connected) {
        let grown = connected.resident.saturating_sub(before.resident) as f64;
        figures.number("rss_bytes_per_connection", grown / crowd.tokens.len() as f64);
    }
    if arguments.verify {
        read_back(target, crowd, shape, &mut ledger)?;
        figures.verdict(ledger.verdict());
    }
    Ok(measured)
}

/// Reads every conversation's log as its first member sees it.
fn read_back(target: &Target, crowd: &Crowd, shape: Shape, ledger: &mut Ledger) -> Result<(), Fault> {
    let conversations: Vec<(usize, Uuid)> = crowd.conversations.iter().copied().enumerate().collect();
    for (conversation, id) in conversations {
        let reader = (0..crowd.tokens.len()).find(|user| shape.conversation(*user) == conversation).ok_or("a conversation of nobody")?;
        let mut lines = line::open(&target.addresses, Form::Json, &[&crowd.tokens[reader]])?;
        for line in &mut lines {
            ledger.read(conversation, &line.log(id)?);
        }
    }
    Ok(())
}
