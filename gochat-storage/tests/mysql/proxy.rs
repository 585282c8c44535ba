//! A way to the server that can be counted on, cut, and closed: it reads the protocol's packets as they pass.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinHandle},
};

const QUERY: u8 = 0x03;
const PREPARE: u8 = 0x16;
const EXECUTE: u8 = 0x17;

#[derive(Default)]
pub struct Traffic {
    /// Statements that were run, by text or prepared.
    pub statements: AtomicUsize,
    /// Statements that were prepared.
    pub prepared: AtomicUsize,
    /// Takes the next COMMIT to the server and closes the connection when the answer comes, instead of bringing it.
    pub cut_at_commit: AtomicBool,
}

pub struct Proxy {
    pub port: u16,
    pub traffic: Arc<Traffic>,
    server: String,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    pub async fn start(server: String) -> Proxy {
        for port in 13_310..13_400 {
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
                let mut proxy = Proxy { port, traffic: Arc::default(), server, open: Arc::default(), accepting: None };
                proxy.accept(listener);
                return proxy;
            }
        }
        panic!("no free port for the proxy");
    }

    /// Closes all connections and the door.
    pub async fn close(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // Its socket is closed only then.
            let _ = accepting.await;
        }
        for task in self.open.lock().unwrap().drain(..) {
            task.abort();
        }
    }

    /// Opens the door again.
    pub async fn open(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.accept(listener);
    }

    fn accept(&mut self, listener: TcpListener) {
        let (server, traffic, open) = (self.server.clone(), self.traffic.clone(), self.open.clone());
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, traffic) = (server.clone(), traffic.clone());
                let task = tokio::spawn(async move { drop(pass(client, &server, &traffic).await) });
                open.lock().unwrap().push(task.abort_handle());
            }
        }));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for task in self.open.lock().unwrap().drain(..).chain(self.accepting.take().map(|task| task.abort_handle())) {
            task.abort();
        }
    }
}

async fn pass(client: TcpStream, server: &str, traffic: &Traffic) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    let cut = AtomicBool::new(false);
    let there = async {
        loop {
            let mut header = [0; 4];
            from_client.read_exact(&mut header).await?;
            let [a, b, c, sequence] = header;
            let mut packet = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
            from_client.read_exact(&mut packet).await?;
            match packet.first().filter(|_| sequence == 0) {
                Some(&QUERY) if packet[1..].eq_ignore_ascii_case(b"COMMIT") && traffic.cut_at_commit.swap(false, Ordering::SeqCst) => {
                    cut.store(true, Ordering::SeqCst);
                }
                Some(&(QUERY | EXECUTE)) => drop(traffic.statements.fetch_add(1, Ordering::SeqCst)),
                Some(&PREPARE) => drop(traffic.prepared.fetch_add(1, Ordering::SeqCst)),
                _ => {}
            }
            to_server.write_all(&[&header[..], &packet].concat()).await?;
        }
    };
    let back = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 || cut.load(Ordering::SeqCst) {
                return Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! { ended = there => ended, ended = back => ended }
}
