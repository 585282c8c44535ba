//! What this machine can do at best: the disk, the store alone, the sockets alone, the hash alone. Every other figure is worth
//! something only beside these.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use gochat_core::{
    auth::{PasswordSettings, Passwords},
    ids::{ClientMsgId, ConversationId, MessageId, Seq, UserId},
    model::{Body, ConversationKind, Draft, JoinMode, MessageKind, NewConversation, NewUser, PayloadHash},
    ports::{AppendBatch, Conversations, Messages, Users},
    time::{Clock, IdGenerator},
};
use gochat_server::system::{SystemClock, SystemIds};
use gochat_storage::sqlite::{self, Database, SqliteSettings};
use socket2::SockRef;

use super::{Fault, figures::Figures};

/// Time for each of the loops.
const LOOP: Duration = Duration::from_secs(2);
/// Conversations that the append loop writes to, as in `p2p` with 200 clients.
const CONVERSATIONS: usize = 100;
/// Batches side by side, as the bus has partitions.
const BATCHES: usize = 4;
/// Sockets of the fan-out loop.
const SOCKETS: usize = 1000;
/// Bytes of a delivered frame with a text of 128 bytes, about.
const FRAME_BYTES: usize = 400;

/// All of them.
pub async fn calibrate(folder: &Path) -> Result<Figures, Fault> {
    let mut figures = Figures::of("calibrate");
    figures.number("fdatasync_us", fdatasync(folder)?);
    figures.number("store_appends_per_s", appends(folder).await?);
    figures.number("socket_deliveries_per_s", sockets(1)?);
    figures.number("socket_deliveries_per_s_by_8", sockets(8)?);
    figures.number("hashes_per_s", hashes().await?);
    Ok(figures)
}

/// Microseconds of one `fdatasync` behind a write of 4 KB: the median of 200.
pub fn fdatasync(folder: &Path) -> Result<f64, Fault> {
    let path = folder.join(format!("gochat-bench-{}.sync", uuid::Uuid::now_v7().simple()));
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(200);
    for _ in 0..200 {
        file.write_all(&[7; 4096])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed());
    }
    std::fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[times.len() / 2].as_nanos() as f64 / 1000.0)
}

/// Messages a second that the store alone makes durable: the real schema, full sync, batches of different conversations.
async fn appends(folder: &Path) -> Result<f64, Fault> {
    let folder = folder.join(format!("gochat-bench-{}", uuid::Uuid::now_v7().simple()));
    std::fs::create_dir_all(&folder)?;
    let store = sqlite::open(&folder.join("calibrate.db"), &SqliteSettings::default())?;
    let pairs = pairs(&store).await?;
    let began = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for pairs in pairs.chunks(CONVERSATIONS / BATCHES) {
        let (store, pairs) = (store.clone(), pairs.to_vec());
        writers.spawn(async move {
            let mut stored = 0;
            while began.elapsed() < LOOP {
                let drafts: Vec<Draft> = pairs.iter().flat_map(|(id, user)| [draft(*id, *user), draft(*id, *user)]).collect();
                let batch = AppendBatch { drafts, dispatched: Vec::new() };
                stored += store.append(&batch).await?.into_iter().filter(Result::is_ok).count();
            }
            Ok::<usize, gochat_core::Error>(stored)
        });
    }
    let mut stored = 0;
    while let Some(writer) = writers.join_next().await {
        stored += writer??;
    }
    let rate = stored as f64 / began.elapsed().as_secs_f64();
    tokio::task::spawn_blocking(move || store.close()).await?;
    std::fs::remove_dir_all(folder)?;
    Ok(rate)
}

async fn pairs(store: &Database) -> Result<Vec<(ConversationId, UserId)>, Fault> {
    let mut pairs = Vec::with_capacity(CONVERSATIONS);
    for number in 0..CONVERSATIONS {
        let mut users = Vec::new();
        for side in ["a", "b"] {
            let new = NewUser {
                id: UserId::from(SystemIds.uuid()),
                username: format!("calibrate{number}{side}"),
                display_name: "Calibrate".into(),
                password_phc: None,
                external_id: None,
                created_at: SystemClock.now(),
            };
            users.push(store.create_user(&new).await?.id);
        }
        let new = NewConversation {
            id: ConversationId::from(SystemIds.uuid()),
            kind: ConversationKind::Single,
            creator: users[0],
            members: vec![users[1]],
            name: String::new(),
            description: String::new(),
            avatar_url: None,
            join_mode: JoinMode::Invite,
            max_members: 2,
            event_id: MessageId::from(SystemIds.uuid()),
            idempotency: None,
            at: SystemClock.now(),
        };
        pairs.push((store.create_conversation(&new).await?.conversation.id, users[0]));
    }
    Ok(pairs)
}

fn draft(conversation: ConversationId, sender: UserId) -> Draft {
    Draft {
        conversation,
        id: MessageId::from(SystemIds.uuid()),
        sender,
        client_msg_id: ClientMsgId::from(SystemIds.uuid()),
        body: Body { kind: MessageKind::Text, content: "x".repeat(128).into() },
        payload_hash: PayloadHash { key_id: 1, hash: [0; 32] },
        reply_to: None::<Seq>,
        created_at: SystemClock.now(),
    }
}

/// Frames a second that one thread writes to many sockets and another one reads, `batch` frames in each write. Each round
/// waits until everybody has it.
fn sockets(batch: usize) -> Result<f64, Fault> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut near, mut far) = (Vec::with_capacity(SOCKETS), Vec::with_capacity(SOCKETS));
    for _ in 0..SOCKETS {
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        near.push(stream);
        far.push(listener.accept()?.0);
    }
    let round = vec![7; FRAME_BYTES * batch];
    let bytes = round.len();
    let (told, tell) = std::sync::mpsc::sync_channel::<()>(1);
    let reader = std::thread::spawn(move || -> std::io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        // Ends with the writer: its sockets close, and nothing more can be read.
        loop {
            for stream in &mut far {
                let mut left = bytes;
                while left > 0 {
                    match stream.read(&mut buffer[..left])? {
                        0 => return Ok(()),
                        read => left -= read,
                    }
                }
            }
            if told.send(()).is_err() {
                return Ok(());
            }
        }
    });
    let (began, mut rounds) = (Instant::now(), 0_u64);
    while began.elapsed() < LOOP / 2 {
        for stream in &mut near {
            stream.write_all(&round)?;
        }
        tell.recv()?;
        rounds += 1;
    }
    let rate = rounds as f64 * (SOCKETS * batch) as f64 / began.elapsed().as_secs_f64();
    for stream in &near {
        // No port stays taken.
        let _ = SockRef::from(&stream.as_fd()).set_linger(Some(Duration::ZERO));
    }
    drop((near, tell));
    let _ = reader.join();
    Ok(rate)
}

/// Password checks a second of the pool that the server has.
pub async fn hashes() -> Result<f64, Fault> {
    let passwords = Arc::new(Passwords::new(PasswordSettings::default(), Arc::new(SystemIds))?);
    let phc = passwords.hash("correct horse battery").await?;
    let began = Instant::now();
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..PasswordSettings::default().workers * 2 {
        let (passwords, phc) = (passwords.clone(), phc.clone());
        tries.spawn(async move {
            let mut count = 0_u32;
            while began.elapsed() < LOOP * 2 {
                passwords.verify("correct horse battery", Some(&phc)).await?;
                count += 1;
            }
            Ok::<u32, gochat_core::Error>(count)
        });
    }
    let mut count = 0;
    while let Some(tried) = tries.join_next().await {
        count += tried??;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}
