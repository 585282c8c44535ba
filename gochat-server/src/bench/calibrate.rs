//! What the disk, and SQLite on it, can do at best.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use gochat_storage::sqlite::{self, SqliteSettings};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::Fault;

/// Writes that are timed.
const WRITES: usize = 400;
/// How long messages are appended.
const LOOP: Duration = Duration::from_millis(1500);
/// Conversations that they belong to.
const CONVERSATIONS: usize = 100;
/// Bytes of a text.
const TEXT: [u8; 128] = [b'x'; 128];

/// Microseconds of one `fdatasync` behind an append of 4 KB: the median.
pub fn fdatasync(folder: &Path) -> Result<f64, Fault> {
    let path = folder.join(format!("gochat-bench-{}.sync", Uuid::now_v7().simple()));
    let mut file = File::create_new(&path)?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        file.write_all(&[7; 4096])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed());
    }
    std::fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[WRITES / 2].as_nanos() as f64 / 1000.0)
}

/// Messages a second that one bare loop makes durable: the real schema, WAL, `synchronous=FULL`, `batch` messages and the heads
/// of their conversations in each commit; nothing is checked and nothing is read.
pub fn appends(folder: &Path, batch: usize) -> Result<f64, Fault> {
    let folder = folder.join(format!("gochat-bench-{}", Uuid::now_v7().simple()));
    std::fs::create_dir_all(&folder)?;
    let rate = append_in(&folder, batch);
    std::fs::remove_dir_all(folder)?;
    rate
}

fn append_in(folder: &Path, batch: usize) -> Result<f64, Fault> {
    let path = folder.join("calibrate.db");
    // The schema is the store's own.
    sqlite::open(&path, &SqliteSettings::default())?.close();
    let mut database = Connection::open(&path)?;
    database.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=10000; PRAGMA cache_size=-65536;")?;
    let conversations: Vec<Uuid> = (0..CONVERSATIONS).map(|_| Uuid::now_v7()).collect();
    for id in &conversations {
        database.execute(
            "INSERT INTO conversations (id, kind, name, description, join_mode, max_members, member_count, head_seq, dispatched_seq, members_seq,
                                        dissolved, version, created_at, active_at)
             VALUES (?1, 1, '', '', 0, 2, 2, 0, 0, 0, 0, 1, 0, 0)",
            [&id.as_bytes()[..]],
        )?;
    }
    let (sender, hash) = (Uuid::now_v7(), [7_u8; 32]);
    let (began, mut stored) = (Instant::now(), 0_usize);
    while began.elapsed() < LOOP {
        let transaction = database.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO messages (conversation_id, seq, message_id, sender_id, client_msg_id, payload_key_id, payload_hash, kind, envelope,
                                       body, reply_to, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, 1, 0, ?7, NULL, ?8)",
            )?;
            let mut advance =
                transaction.prepare_cached("UPDATE conversations SET head_seq = ?2, dispatched_seq = ?3, active_at = ?4 WHERE id = ?1")?;
            for row in stored..stored + batch {
                let (conversation, seq) = (&conversations[row % CONVERSATIONS], row / CONVERSATIONS + 1);
                let (id, client) = (Uuid::now_v7(), Uuid::now_v7());
                let ids = (&conversation.as_bytes()[..], &id.as_bytes()[..], &sender.as_bytes()[..], &client.as_bytes()[..]);
                insert.execute(params![ids.0, seq as i64, ids.1, ids.2, ids.3, &hash[..], &TEXT[..], 0])?;
            }
            for (number, conversation) in conversations.iter().enumerate().take(batch) {
                let head = (stored + batch).saturating_sub(number) / CONVERSATIONS;
                advance.execute(params![&conversation.as_bytes()[..], head as i64, 0, 0])?;
            }
        }
        transaction.commit()?;
        stored += batch;
    }
    Ok(stored as f64 / began.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_loops_run_on_the_real_schema() {
        let folder = tempfile::tempdir().unwrap();
        assert!(super::appends(folder.path(), 250).unwrap() > 0.0);
        assert!(super::fdatasync(folder.path()).unwrap() > 0.0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
