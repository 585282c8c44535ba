//! Reading the newest page of a conversation, over WebSocket, by many clients at once.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    Arguments, Fault,
    figures::{Figures, Latencies},
    line,
    pool::Pool,
    progress,
    target::Target,
    wire::{self, Told},
};

/// Entries in each conversation, and in one page.
const ENTRIES: usize = 60;
const PAGE: usize = 50;

pub async fn history(target: &Target, arguments: &Arguments) -> Result<Figures, Fault> {
    let clients = arguments.clients.unwrap_or(64).max(2) / 2 * 2;
    let crowd = target.provision(json!({"users": clients, "prefix": arguments.prefix("read"), "pairs": true})).await?;
    let writers: Vec<&str> = crowd.tokens().into_iter().step_by(2).collect();
    for (line, conversation) in line::open(target.address, &writers)?.iter_mut().zip(&crowd.conversations) {
        for number in 0..ENTRIES as u64 {
            let id = uuid::Uuid::now_v7();
            let text = format!("{number:0128}");
            line.send(&json!({"type": "send", "id": number + 2, "conversation_id": conversation, "client_msg_id": id, "text": text}))?;
        }
        line.answer(ENTRIES as u64 + 1)?;
    }
    let mut pool = Pool::open(target.address, &crowd.tokens())?;
    let ask =
        |client: usize| format!(r#"{{"type":"history","id":2,"conversation_id":"{}","limit":{PAGE}}}"#, crowd.conversations[client / 2]).into_bytes();
    let asks: Vec<Vec<u8>> = (0..clients).map(ask).collect();
    let mut asked = vec![Instant::now(); clients];
    for (client, ask) in asks.iter().enumerate() {
        pool.outbox.send(client, ask);
    }
    let mut progress = progress::Line::new(arguments.quiet());
    let (mut pages, mut latencies) = (0_u64, Latencies::new());
    let (began, used) = (Instant::now(), target.usage());
    let end = began + Duration::from_secs_f64(arguments.seconds);
    while Instant::now() < end {
        let mut refused = None;
        pool.turn(Duration::from_millis(100), |outbox, who, payload, at| match wire::Form::Json.read(payload) {
            Told::Answer { id: 2 } => {
                pages += 1;
                latencies.add(at.duration_since(asked[who]));
                asked[who] = at;
                outbox.send(who, &asks[who]);
            }
            Told::Error { code, .. } => refused = Some(String::from_utf8_lossy(code).into_owned()),
            _ => {}
        })?;
        if let Some(code) = refused {
            return Err(format!("a page was refused: {code}").into());
        }
        progress.show(|| format!("{pages} pages"));
    }
    let seconds = began.elapsed().as_secs_f64();
    let mut figures = Figures::of("history");
    figures.set("clients", clients);
    figures.number("pages_per_s", pages as f64 / seconds);
    figures.set("page_ms", latencies.value());
    if let (Some(used), Some(then)) = (used, target.usage()) {
        figures.number("server_cpu_us_per_page", (then.cpu - used.cpu).as_micros() as f64 / (pages as f64).max(1.0));
    }
    Ok(figures)
}
