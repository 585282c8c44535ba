//! One WebSocket connection, blocking: for setting up, and for reading afterwards what was stored.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};

use super::{Fault, wire};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Line {
    pub stream: TcpStream,
    /// What was read and is not handled yet.
    pub input: Vec<u8>,
}

impl Line {
    /// Connects; nothing is asked yet.
    pub fn connect(address: SocketAddr) -> Result<Line, Fault> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Line { stream, input: Vec::new() })
    }

    /// Asks for the upgrade.
    pub fn ask_upgrade(&mut self, address: SocketAddr) -> Result<(), Fault> {
        let request = format!(
            "GET /api/v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: gochat.v1.json\r\n\r\n"
        );
        Ok(self.stream.write_all(request.as_bytes())?)
    }

    /// Waits for the answer to the upgrade.
    pub fn upgraded(&mut self) -> Result<(), Fault> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.input, b"\r\n\r\n") {
                if !self.input.starts_with(b"HTTP/1.1 101") {
                    return Err(format!("no upgrade: {}", String::from_utf8_lossy(&self.input)).into());
                }
                self.input.drain(..end + 4);
                return Ok(());
            }
            self.more()?;
        }
    }

    /// Sends a request.
    pub fn send(&mut self, request: &Value) -> Result<(), Fault> {
        let mut frame = Vec::new();
        wire::write_frame(&mut frame, wire::TEXT, request.to_string().as_bytes());
        Ok(self.stream.write_all(&frame)?)
    }

    /// Proves who is connected.
    pub fn ask_auth(&mut self, token: &str) -> Result<(), Fault> {
        self.send(&json!({"type": "auth", "id": 1, "token": token}))
    }

    /// The next frame that answers the request with this number.
    pub fn answer(&mut self, id: u64) -> Result<Value, Fault> {
        loop {
            while let Some((frame, end)) = wire::first(&self.input) {
                let value: Option<Value> = (frame.opcode == wire::TEXT).then(|| serde_json::from_slice(frame.payload)).transpose()?;
                let closed = frame.opcode == wire::CLOSE;
                self.input.drain(..end);
                match value {
                    Some(value) if value["id"] == id && value["type"] == "error" => return Err(format!("refused: {value}").into()),
                    Some(value) if value["id"] == id => return Ok(value),
                    _ if closed => return Err("the server closed the connection".into()),
                    _ => {}
                }
            }
            self.more()?;
        }
    }

    /// Everything of a conversation's log, ascending.
    pub fn history(&mut self, conversation: &str) -> Result<Vec<Value>, Fault> {
        let mut log: Vec<Value> = Vec::new();
        loop {
            let after = log.last().map_or(0, |message| message["seq"].as_i64().unwrap_or(0));
            self.send(&json!({"type": "history", "id": 2, "conversation_id": conversation, "after": after, "limit": 200}))?;
            let page = self.answer(2)?;
            log.extend(page["messages"].as_array().into_iter().flatten().cloned());
            if page["more"] != true {
                return Ok(log);
            }
        }
    }

    /// Ends it without a farewell, so that no port stays taken.
    pub fn drop_at_once(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
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

/// Many connections, each step for all of them before the next step for any: the server works on all of them at once.
pub fn open(address: SocketAddr, tokens: &[&str]) -> Result<Vec<Line>, Fault> {
    let mut lines = Vec::with_capacity(tokens.len());
    for _ in tokens {
        lines.push(Line::connect(address)?);
    }
    lines.iter_mut().try_for_each(|line| line.ask_upgrade(address))?;
    lines.iter_mut().try_for_each(Line::upgraded)?;
    lines.iter_mut().zip(tokens).try_for_each(|(line, token)| line.ask_auth(token))?;
    lines.iter_mut().try_for_each(|line| line.answer(1).map(|_| ()))?;
    Ok(lines)
}
