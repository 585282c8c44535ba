//! `connect`: connect, prove who it is, sync once; many at a time, and all stay until everybody is there. Then all hang up and it
//! begins anew; the time of hanging up does not count.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use uuid::Uuid;

use super::{
    Arguments, Fault,
    figures::{Figures, Latencies},
    progress,
    provision::{self, Crowd, Wanted},
    target::Target,
    usage,
    wire::{self, Form, Told},
};

/// Connections that are being opened at once.
const AT_ONCE: usize = 64;
/// The server's time to clear away a round.
const BETWEEN: Duration = Duration::from_millis(500);
/// A step takes at most so long.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn connect(target: &Target, arguments: &Arguments) -> Result<Figures, Fault> {
    let clients = arguments.clients.unwrap_or(4000).max(2).next_multiple_of(2);
    let crowd = provision::provision(target, "c", Wanted { users: clients, pairs: true, group: false }).await?;
    let mut progress = progress::Line::new("connect");
    let (mut done, mut time, mut latencies) = (0, Duration::ZERO, Latencies::new());
    let (mut server_cpu, mut own_cpu) = (Duration::ZERO, Duration::ZERO);
    // One round unmeasured.
    let mut warm = false;
    while time.as_secs_f64() < arguments.seconds {
        let (began, used, own) = (Instant::now(), target.usage(), usage::own());
        let mut round = Round::new(target.address(), arguments.protocol, &crowd)?;
        let mut fresh = Latencies::new();
        while round.ready < clients {
            round.turn(&mut fresh)?;
            progress.show(|| format!("{} connected", done + round.ready));
        }
        if warm {
            time += began.elapsed();
            done += clients;
            latencies.merge(&fresh);
            server_cpu += used.zip(target.usage()).map_or(Duration::ZERO, |(used, then)| then.cpu - used.cpu);
            own_cpu += own.zip(usage::own()).map_or(Duration::ZERO, |(own, then)| then.cpu - own.cpu);
        }
        warm = true;
        drop(round);
        std::thread::sleep(BETWEEN);
    }
    let mut figures = Figures::of("connect");
    figures.set("clients", clients);
    figures.set("protocol", arguments.protocol.subprotocol());
    figures.number("connects_per_s", done as f64 / time.as_secs_f64());
    figures.set("connect_ms", latencies.value());
    figures.number("generator_cpu_percent", own_cpu.as_secs_f64() / time.as_secs_f64() * 100.0);
    if target.usage().is_some() {
        figures.number("server_cpu_us_per_connect", server_cpu.as_secs_f64() * 1e6 / done as f64);
    }
    Ok(figures)
}

/// Where a connection is.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Connecting,
    Upgrading,
    Authenticating,
    Syncing,
    Ready,
}

struct Client {
    stream: TcpStream,
    step: Step,
    began: Instant,
    input: Vec<u8>,
}

/// Everybody once.
struct Round<'a> {
    address: SocketAddr,
    form: Form,
    crowd: &'a Crowd,
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    ready: usize,
    moved: Instant,
}

impl<'a> Round<'a> {
    fn new(address: SocketAddr, form: Form, crowd: &'a Crowd) -> Result<Self, Fault> {
        let clients = Vec::with_capacity(crowd.tokens.len());
        Ok(Round { address, form, crowd, poll: Poll::new()?, events: Events::with_capacity(256), clients, ready: 0, moved: Instant::now() })
    }

    fn turn(&mut self, latencies: &mut Latencies) -> Result<(), Fault> {
        while self.clients.len() < self.crowd.tokens.len() && self.clients.len() - self.ready < AT_ONCE {
            let mut stream = TcpStream::connect(self.address)?;
            self.poll.registry().register(&mut stream, Token(self.clients.len()), Interest::READABLE | Interest::WRITABLE)?;
            self.clients.push(Client { stream, step: Step::Connecting, began: Instant::now(), input: Vec::new() });
        }
        match self.poll.poll(&mut self.events, Some(PATIENCE)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            let number = event.token().0;
            let client = &mut self.clients[number];
            let before = client.step;
            let (token, conversation) = (&self.crowd.tokens[number], self.crowd.conversations[number / 2]);
            if client.step == Step::Connecting && event.is_writable() {
                if let Some(error) = client.stream.take_error()? {
                    return Err(error.into());
                }
                client.stream.set_nodelay(true)?;
                client.write(wire::upgrade(self.address, self.form).as_bytes())?;
                client.step = Step::Upgrading;
            }
            if event.is_readable() {
                client.read(self.form, token, conversation)?;
            }
            if client.step != before {
                self.moved = Instant::now();
                if client.step == Step::Ready {
                    self.ready += 1;
                    latencies.add(client.began.elapsed());
                    client.input = Vec::new();
                }
            }
        }
        if self.moved.elapsed() > PATIENCE {
            return Err(format!("{} connections wait for the server", self.clients.len() - self.ready).into());
        }
        Ok(())
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        for client in &self.clients {
            // Without a farewell, so that no port stays taken.
            let _ = socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Client {
    /// What is written here is small and the first on its way: it fits.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        Ok(self.stream.write_all(bytes)?)
    }

    fn request(&mut self, form: Form, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Fault> {
        let (mut payload, mut frame) = (Vec::new(), Vec::new());
        write(&mut payload);
        wire::write_frame(&mut frame, form.opcode(), &payload);
        self.write(&frame)
    }

    fn read(&mut self, form: Form, token: &str, conversation: Uuid) -> Result<(), Fault> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the server hung up".into()),
                Ok(read) => {
                    self.input.extend_from_slice(&buffer[..read]);
                    if read < buffer.len() {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return Err(error.into()),
            }
        }
        if self.step == Step::Upgrading
            && let Some(end) = wire::upgraded(&self.input)?
        {
            self.input.drain(..end);
            self.step = Step::Authenticating;
            self.request(form, |out| form.write_auth(out, 1, token))?;
        }
        while let Some((frame, end)) = wire::first(&self.input) {
            let told = match frame.opcode {
                wire::CLOSE => return Err(wire::closed(frame.payload)),
                _ => form.read(frame.payload),
            };
            let next = match (self.step, told) {
                (Step::Authenticating, Told::Answer { id: 1 }) => Step::Syncing,
                (Step::Syncing, Told::Answer { id: 2 }) => Step::Ready,
                (_, Told::Error { code, .. }) => return Err(format!("refused: {}", String::from_utf8_lossy(code)).into()),
                (step, _) => step,
            };
            self.input.drain(..end);
            if next != self.step && next == Step::Syncing {
                self.request(form, |out| form.write_sync(out, 2, conversation))?;
            }
            self.step = next;
        }
        Ok(())
    }
}
