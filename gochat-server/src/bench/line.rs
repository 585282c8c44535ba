//! One WebSocket connection, blocking: for setting up, and for reading afterwards what was stored.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Fault,
    wire::{self, Form, Stamp, Told},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Line {
    form: Form,
    pub stream: TcpStream,
    /// What was read and is not handled yet.
    pub input: Vec<u8>,
}

impl Line {
    fn connect(address: SocketAddr, form: Form) -> Result<Line, Fault> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Line { form, stream, input: Vec::new() })
    }

    fn ask_upgrade(&mut self, address: SocketAddr) -> Result<(), Fault> {
        Ok(self.stream.write_all(wire::upgrade(address, self.form).as_bytes())?)
    }

    fn upgraded(&mut self) -> Result<(), Fault> {
        loop {
            if let Some(end) = wire::upgraded(&self.input)? {
                self.input.drain(..end);
                return Ok(());
            }
            self.more()?;
        }
    }

    /// Sends a request in the connection's form.
    pub fn send(&mut self, write: impl FnOnce(Form, &mut Vec<u8>)) -> Result<(), Fault> {
        let (mut payload, mut frame) = (Vec::new(), Vec::new());
        write(self.form, &mut payload);
        wire::write_frame(&mut frame, self.form.opcode(), &payload);
        Ok(self.stream.write_all(&frame)?)
    }

    /// Waits for the answer to the request with this number.
    pub fn answered(&mut self, wanted: u64) -> Result<(), Fault> {
        let form = self.form;
        self.until(|payload| match form.read(payload) {
            Told::Answer { id } | Told::Ack { id, .. } if id == wanted => Ok(Some(())),
            Told::Error { id, code } if id == wanted || id == 0 => Err(refused(code)),
            _ => Ok(None),
        })
    }

    /// Everything of a conversation's log, ascending: the seq and, where it is a message of the load, its stamp. For JSON.
    pub fn log(&mut self, conversation: Uuid) -> Result<Vec<(i64, Option<Stamp>)>, Fault> {
        let mut log: Vec<(i64, Option<Stamp>)> = Vec::new();
        for id in 2_u64.. {
            let after = log.last().map_or(0, |(seq, _)| *seq);
            let request = json!({"type": "history", "id": id, "conversation_id": conversation, "after": after, "limit": 200});
            self.send(|_, out| out.extend_from_slice(request.to_string().as_bytes()))?;
            let page: Value = self.until(|payload| {
                let value: Value = serde_json::from_slice(payload)?;
                match value["type"].as_str() {
                    Some("history") if value["id"] == id => Ok(Some(value)),
                    Some("error") => Err(refused(value["code"].as_str().unwrap_or_default().as_bytes())),
                    _ => Ok(None),
                }
            })?;
            let entries = page["messages"].as_array().ok_or("a page without messages")?;
            log.extend(entries.iter().map(|entry| {
                let stamp = entry["text"].as_str().and_then(|text| wire::stamp(text.as_bytes()));
                (entry["seq"].as_i64().unwrap_or(0), stamp)
            }));
            if page["more"] != true || entries.is_empty() {
                break;
            }
        }
        Ok(log)
    }

    /// Reads frames until one is what is wanted.
    fn until<T>(&mut self, mut wanted: impl FnMut(&[u8]) -> Result<Option<T>, Fault>) -> Result<T, Fault> {
        loop {
            while let Some((frame, end)) = wire::first(&self.input) {
                let found = match frame.opcode {
                    wire::TEXT | wire::BINARY => wanted(frame.payload)?,
                    wire::CLOSE => return Err(wire::closed(frame.payload)),
                    _ => None,
                };
                self.input.drain(..end);
                if let Some(found) = found {
                    return Ok(found);
                }
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Result<(), Fault> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err("the server hung up".into()),
            bytes => {
                self.input.extend_from_slice(&buffer[..bytes]);
                Ok(())
            }
        }
    }
}

fn refused(code: &[u8]) -> Fault {
    format!("the server refused: {}", String::from_utf8_lossy(code)).into()
}

/// Many connections, to one address after the other; each step for all of them before the next step for any: the server works on all of them at once.
pub fn open(addresses: &[SocketAddr], form: Form, tokens: &[&str]) -> Result<Vec<Line>, Fault> {
    let at = || addresses.iter().copied().cycle();
    let mut lines = Vec::with_capacity(tokens.len());
    for (_, address) in tokens.iter().zip(at()) {
        lines.push(Line::connect(address, form)?);
    }
    lines.iter_mut().zip(at()).try_for_each(|(line, address)| line.ask_upgrade(address))?;
    lines.iter_mut().try_for_each(Line::upgraded)?;
    lines.iter_mut().zip(tokens).try_for_each(|(line, token)| line.send(|form, out| form.write_auth(out, 1, token)))?;
    lines.iter_mut().try_for_each(|line| line.answered(1))?;
    Ok(lines)
}
