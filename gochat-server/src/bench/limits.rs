//! What this machine can do at best, measured once in an invocation and when it is asked for: the disk, a bare append loop, bare
//! sockets, the bare hash. Every other figure is worth something only beside these.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use gochat_core::auth::{PasswordSettings, Passwords};
use gochat_server::system::SystemIds;
use serde_json::json;

use super::{Fault, calibrate, figures::Figures, sockets};

/// Messages in one commit at most.
const BATCH_MAX: usize = 4000;
/// Frames in one write at most.
const FRAMES_MAX: usize = 64;
/// Sockets at most: each has two ends in this process, which may open 20,000 files.
const SOCKETS_MAX: usize = 9_500;
/// How long passwords are hashed.
const HASHING: Duration = Duration::from_secs(4);
/// What `calibrate` measures: the loads of docs/performance.md.
const BATCHES: [usize; 3] = [1, 200, 4000];
const FANOUTS: [(usize, usize); 6] = [(100, 1), (100, 8), (1000, 1), (1000, 8), (9000, 1), (9000, 8)];

pub struct Limits {
    folder: PathBuf,
    appends: BTreeMap<usize, f64>,
    deliveries: BTreeMap<(usize, usize), f64>,
    hashes: Option<f64>,
}

impl Limits {
    pub fn new(folder: &Path) -> Self {
        Limits { folder: folder.to_owned(), appends: BTreeMap::new(), deliveries: BTreeMap::new(), hashes: None }
    }

    /// All of them, as a scenario of its own.
    pub async fn calibrate(&mut self) -> Result<Figures, Fault> {
        let mut figures = Figures::of("calibrate");
        figures.number("fdatasync_us", calibrate::fdatasync(&self.folder)?);
        let mut appends = serde_json::Map::new();
        for batch in BATCHES {
            appends.insert(batch.to_string(), json!(self.appends(batch)?.round()));
        }
        figures.set("appends_per_s_by_batch", appends);
        let mut deliveries = serde_json::Map::new();
        for (sockets, frames) in FANOUTS {
            deliveries.insert(format!("{sockets}x{frames}"), json!(self.deliveries(sockets, frames)?.round()));
        }
        figures.set("socket_deliveries_per_s", deliveries);
        figures.number("hashes_per_s", self.hashes().await?);
        figures.number("fdatasync_us_after", calibrate::fdatasync(&self.folder)?);
        Ok(figures)
    }

    /// Messages a second of the bare append loop with so many in a commit.
    pub fn appends(&mut self, batch: usize) -> Result<f64, Fault> {
        let batch = batch.clamp(1, BATCH_MAX);
        Ok(match self.appends.get(&batch) {
            Some(known) => *known,
            None => *self.appends.entry(batch).or_insert(calibrate::appends(&self.folder, batch)?),
        })
    }

    /// The same, if it was measured.
    pub fn known_appends(&self, batch: usize) -> Option<f64> {
        self.appends.get(&batch.clamp(1, BATCH_MAX)).copied()
    }

    /// Frames a second to so many bare sockets with so many frames in a write.
    pub fn deliveries(&mut self, sockets: usize, frames: usize) -> Result<f64, Fault> {
        let key = (sockets.clamp(1, SOCKETS_MAX), frames.clamp(1, FRAMES_MAX));
        Ok(match self.deliveries.get(&key) {
            Some(known) => *known,
            None => *self.deliveries.entry(key).or_insert(sockets::deliveries(key.0, key.1)?),
        })
    }

    /// The same, if it was measured.
    pub fn known_deliveries(&self, sockets: usize, frames: usize) -> Option<f64> {
        self.deliveries.get(&(sockets.clamp(1, SOCKETS_MAX), frames.clamp(1, FRAMES_MAX))).copied()
    }

    /// Password checks a second of the pool that the server has, without a server.
    pub async fn hashes(&mut self) -> Result<f64, Fault> {
        if let Some(known) = self.hashes {
            return Ok(known);
        }
        let passwords = Arc::new(Passwords::new(PasswordSettings::default(), Arc::new(SystemIds))?);
        let phc = passwords.hash("correct horse battery").await?;
        let began = Instant::now();
        let mut tries = tokio::task::JoinSet::new();
        for _ in 0..PasswordSettings::default().workers * 2 {
            let (passwords, phc) = (passwords.clone(), phc.clone());
            tries.spawn(async move {
                let mut count = 0_u32;
                while began.elapsed() < HASHING {
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
        let rate = f64::from(count) / began.elapsed().as_secs_f64();
        self.hashes = Some(rate);
        Ok(rate)
    }
}
