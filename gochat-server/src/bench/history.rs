//! `history`: the newest page of a conversation over WebSocket, asked for by many clients at once.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{
    Arguments, Fault,
    figures::{Figures, Latencies},
    line,
    load::TEXT_BYTES,
    pool::Pool,
    progress,
    provision::{self, Wanted},
    target::Target,
    usage,
    wire::{Stamp, Told},
};

/// Messages in each conversation.
const ENTRIES: u32 = 100;
/// Entries in a page.
const PAGE: u32 = 50;

pub async fn history(target: &Target, arguments: &Arguments) -> Result<Figures, Fault> {
    let form = arguments.protocol;
    let clients = arguments.clients.unwrap_or(64).max(2).next_multiple_of(2);
    let crowd = provision::provision(target, "h", Wanted { users: clients, pairs: true, group: false }).await?;
    let writers: Vec<&str> = crowd.tokens().into_iter().step_by(2).collect();
    for (line, conversation) in line::open(&target.addresses, form, &writers)?.iter_mut().zip(&crowd.conversations) {
        for number in 1..=ENTRIES {
            let stamp = Stamp { sent: Duration::ZERO, sender: 0, number };
            line.send(|form, out| form.write_send(out, u64::from(number) + 1, *conversation, Uuid::now_v7(), stamp, TEXT_BYTES))?;
        }
        (1..=ENTRIES).try_for_each(|number| line.answered(u64::from(number) + 1))?;
    }

    let mut pool = Pool::open(&target.addresses, form, &crowd.tokens())?;
    let mut asked = vec![Instant::now(); clients];
    for client in 0..clients {
        pool.outbox.send(client, |out| form.write_history(out, 2, crowd.conversations[client / 2], PAGE));
    }
    let mut progress = progress::Line::new("history");
    let (mut pages, mut short, mut latencies) = (0_u64, 0_u64, Latencies::new());
    let (began, used, own) = (Instant::now(), target.usage(), usage::own());
    let end = began + Duration::from_secs_f64(arguments.seconds);
    while Instant::now() < end {
        let mut refused = None;
        pool.turn(Duration::from_millis(100), |outbox, who, payload, at| match form.read(payload) {
            Told::Answer { id: 2 } => {
                pages += 1;
                // Looked at as far as it is cheap: so many texts need so many bytes.
                short += u64::from(payload.len() < PAGE as usize * TEXT_BYTES);
                latencies.add(at.duration_since(asked[who]));
                asked[who] = at;
                outbox.send(who, |out| form.write_history(out, 2, crowd.conversations[who / 2], PAGE));
            }
            Told::Error { code, .. } => refused = Some(String::from_utf8_lossy(code).into_owned()),
            _ => {}
        })?;
        if let Some(code) = refused {
            return Err(format!("a page was refused: {code}").into());
        }
        progress.show(|| format!("{pages} pages"));
    }
    if short > 0 {
        return Err(format!("{short} of {pages} pages did not hold {PAGE} messages").into());
    }
    let seconds = began.elapsed().as_secs_f64();
    let mut figures = Figures::of("history");
    figures.set("clients", clients);
    figures.set("protocol", form.subprotocol());
    figures.number("pages_per_s", pages as f64 / seconds);
    figures.set("page_ms", latencies.value());
    if let Some((used, then)) = used.zip(target.usage()) {
        figures.number("server_cpu_us_per_page", (then.cpu - used.cpu).as_secs_f64() * 1e6 / (pages as f64).max(1.0));
    }
    if let Some((own, then)) = own.zip(usage::own()) {
        figures.number("generator_cpu_percent", (then.cpu - own.cpu).as_secs_f64() / seconds * 100.0);
    }
    Ok(figures)
}
