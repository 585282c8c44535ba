use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit, Mac};
use pbkdf2::{
    Algorithm, Params, Pbkdf2,
    password_hash::{
        PasswordVerifier,
        phc::{Output, PasswordHash, Salt},
    },
};
use sha2::Sha256;
use tokio::sync::oneshot;

use crate::{
    error::{Code, Error, Result},
    time::IdGenerator,
};

/// Iterations after which a hashing thread lets others run: about 100 µs.
const YIELD_EVERY: u32 = 1000;

/// How passwords are hashed.
#[derive(Clone, Debug)]
pub struct PasswordSettings {
    /// PBKDF2-HMAC-SHA256 iterations of new hashes. Stored ones with fewer are replaced at the next login.
    pub iterations: u32,
    /// Threads that hash.
    pub workers: usize,
    /// Passwords that may wait for a thread.
    pub waiting_max: usize,
    /// How long one may wait.
    pub wait_max: Duration,
    /// Runs on each thread before its first password: where a process lets these threads give way to those that carry messages.
    pub thread_start: fn(),
}

impl Default for PasswordSettings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        PasswordSettings { iterations: 600_000, workers: (cores - 1).max(1), waiting_max: 64, wait_max: Duration::from_secs(5), thread_start: || {} }
    }
}

/// Hashes and verifies passwords on threads of its own, so that a storm of logins cannot starve the messages: what does not
/// fit the queue, or waits too long, is refused with `OVERLOADED`.
///
/// Hashes are PHC strings, so that another algorithm can take over hash by hash.
pub struct Passwords {
    queue: SyncSender<Job>,
    settings: PasswordSettings,
    ids: Arc<dyn IdGenerator>,
    /// A hash of nobody's password: what an unknown user's login is verified against, at equal cost.
    dummy: String,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("settings", &self.settings).finish_non_exhaustive()
    }
}

type Job = Box<dyn FnOnce() + Send>;

impl Passwords {
    /// Starts the threads; they end with the last use of this.
    pub fn new(settings: PasswordSettings, ids: Arc<dyn IdGenerator>) -> Result<Self> {
        let (queue, jobs) = sync_channel::<Job>(settings.waiting_max);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..settings.workers.max(1) {
            let (jobs, start) = (jobs.clone(), settings.thread_start);
            let run = move || {
                start();
                work(&jobs);
            };
            std::thread::Builder::new().name("gochat-password".into()).spawn(run).map_err(Error::internal)?;
        }
        let mut salt = [0; 16];
        ids.random(&mut salt);
        // Only its cost matters: nothing has this output.
        let dummy = phc(settings.iterations, &salt, &[0; 32])?;
        Ok(Passwords { queue, settings, ids, dummy })
    }

    /// The PHC string of a password under a new salt.
    pub async fn hash(&self, password: &str) -> Result<String> {
        let mut salt = [0; 16];
        self.ids.random(&mut salt);
        let (password, iterations) = (password.to_owned(), self.settings.iterations);
        self.run(move || phc(iterations, &salt, &stretch(password.as_bytes(), &salt, iterations))).await?
    }

    /// Whether the password has this hash. Without a hash it takes as long and says no.
    pub async fn verify(&self, password: &str, phc: Option<&str>) -> Result<bool> {
        let known = phc.is_some();
        let (password, phc) = (password.to_owned(), phc.unwrap_or(&self.dummy).to_owned());
        self.run(move || {
            let Ok(hash) = PasswordHash::new(&phc) else { return false };
            has_hash(password.as_bytes(), &hash) && known
        })
        .await
    }

    /// Whether a stored hash is weaker than what is used now.
    pub fn is_outdated(&self, phc: &str) -> bool {
        let iterations = PasswordHash::new(phc).ok().and_then(|hash| Params::try_from(&hash).ok()).map_or(0, |params| params.rounds());
        iterations < self.settings.iterations
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let (asked, wait_max) = (Instant::now(), self.settings.wait_max);
        let job: Job = Box::new(move || {
            // Who has waited that long has given up or will: the time is better spent on the next one.
            if asked.elapsed() <= wait_max && !reply.is_closed() {
                let _ = reply.send(work());
            }
        });
        let overloaded = || Error::new(Code::Overloaded, "too many passwords are being checked").retry_after(wait_max);
        self.queue.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => overloaded(),
            TrySendError::Disconnected(_) => Error::internal("the password threads have ended"),
        })?;
        answer.await.map_err(|_| overloaded())
    }
}

fn phc(iterations: u32, salt: &[u8], output: &[u8; 32]) -> Result<String> {
    let unfit = |error: pbkdf2::password_hash::phc::Error| Error::internal(error.to_string());
    let params = Params::new(iterations).map_err(|error| Error::internal(error.to_string()))?;
    let hash = PasswordHash {
        algorithm: Algorithm::Pbkdf2Sha256.into(),
        version: None,
        params: params.try_into().map_err(|_| Error::internal("the parameters have no PHC form"))?,
        salt: Some(Salt::new(salt).map_err(unfit)?),
        hash: Some(Output::new(output).map_err(unfit)?),
    };
    Ok(hash.to_string())
}

/// Compares in a time that does not depend on the outputs. What is not PBKDF2-HMAC-SHA256 with 32 bytes, the library judges.
fn has_hash(password: &[u8], hash: &PasswordHash) -> bool {
    match (&hash.salt, hash.hash, Params::try_from(hash)) {
        (Some(salt), Some(stored), Ok(params)) if hash.algorithm == Algorithm::Pbkdf2Sha256.into() && stored.len() == 32 => {
            Output::new(&stretch(password, salt, params.rounds())).is_ok_and(|output| output == stored)
        }
        _ => Pbkdf2::default().verify_password(password, hash).is_ok(),
    }
}

/// PBKDF2 (RFC 8018 §5.2) with HMAC-SHA256 and one block of output, which gives way every [`YIELD_EVERY`] iterations: a kernel
/// without preemption lets a thread that computes run on until its slice ends, and the messages on that core wait.
fn stretch(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let keyed = match Hmac::<Sha256>::new_from_slice(password) {
        Ok(keyed) => keyed,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    };
    let mut block = keyed.clone().chain_update(salt).chain_update(1_u32.to_be_bytes()).finalize().into_bytes();
    let mut output: [u8; 32] = block.into();
    for iteration in 1..iterations {
        block = keyed.clone().chain_update(block).finalize().into_bytes();
        output.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
        if iteration % YIELD_EVERY == 0 {
            std::thread::yield_now();
        }
    }
    output
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::CountingIds;

    fn passwords(iterations: u32) -> Passwords {
        Passwords::new(PasswordSettings { iterations, ..PasswordSettings::default() }, Arc::new(CountingIds::default())).unwrap()
    }

    #[tokio::test]
    async fn the_right_password_is_right_and_nothing_else() {
        let passwords = passwords(1000);
        let phc = passwords.hash("correct horse").await.unwrap();
        assert!(phc.starts_with("$pbkdf2-sha256$i=1000"), "{phc}");
        assert!(passwords.verify("correct horse", Some(&phc)).await.unwrap());
        assert!(!passwords.verify("correct horsE", Some(&phc)).await.unwrap());
        assert!(!passwords.verify("correct horse", None).await.unwrap());
        assert!(!passwords.verify("correct horse", Some("nonsense")).await.unwrap());
        assert_ne!(phc, passwords.hash("correct horse").await.unwrap(), "each hash has its own salt");
    }

    #[test]
    fn the_stretching_is_that_of_the_library() {
        for (password, salt, iterations) in
            [("", "salt", 1), ("password", "salt", 2), ("a longer password than a block of sixty-four bytes of SHA-256 input", "s", 4097)]
        {
            let mut expected = [0; 32];
            pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt.as_bytes(), iterations, &mut expected);
            assert_eq!(stretch(password.as_bytes(), salt.as_bytes(), iterations), expected);
        }
    }

    #[tokio::test]
    async fn a_hash_with_fewer_iterations_is_outdated() {
        let phc = passwords(1000).hash("correct horse").await.unwrap();
        assert!(passwords(2000).is_outdated(&phc));
        assert!(!passwords(1000).is_outdated(&phc));
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let settings = PasswordSettings { iterations: 200_000, workers: 1, waiting_max: 1, ..PasswordSettings::default() };
        let passwords = Passwords::new(settings, Arc::new(CountingIds::default())).unwrap();
        let hashes = (0..8).map(|_| passwords.hash("correct horse"));
        let outcomes = futures_util::future::join_all(hashes).await;
        assert!(outcomes.iter().any(|outcome| outcome.as_ref().is_err_and(|error| error.code == Code::Overloaded && error.retry_after.is_some())));
        assert!(outcomes.iter().any(Result::is_ok));
    }
}
