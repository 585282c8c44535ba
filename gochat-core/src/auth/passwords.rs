use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use pbkdf2::{
    Algorithm, Params, Pbkdf2,
    password_hash::{CustomizedPasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::oneshot;

use crate::{
    error::{Code, Error, Result},
    time::IdGenerator,
};

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
}

impl Default for PasswordSettings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        PasswordSettings { iterations: 600_000, workers: (cores - 1).max(1), waiting_max: 64, wait_max: Duration::from_secs(5) }
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
            let jobs = jobs.clone();
            std::thread::Builder::new().name("gochat-password".into()).spawn(move || work(&jobs)).map_err(Error::internal)?;
        }
        let mut salt = [0; 16];
        ids.random(&mut salt);
        let params = Params::new(settings.iterations).map_err(|error| Error::internal(error.to_string()))?;
        // Only its cost matters: nothing has this output.
        let dummy = PasswordHash {
            algorithm: Algorithm::Pbkdf2Sha256.into(),
            version: None,
            params: params.try_into().map_err(|_| Error::internal("the parameters have no PHC form"))?,
            salt: Some(pbkdf2::password_hash::phc::Salt::new(&salt).map_err(|error| Error::internal(error.to_string()))?),
            hash: Some(pbkdf2::password_hash::phc::Output::new(&[0; 32]).map_err(|error| Error::internal(error.to_string()))?),
        };
        Ok(Passwords { queue, settings, ids, dummy: dummy.to_string() })
    }

    /// The PHC string of a password under a new salt.
    pub async fn hash(&self, password: &str) -> Result<String> {
        let mut salt = [0; 16];
        self.ids.random(&mut salt);
        let (password, iterations) = (password.to_owned(), self.settings.iterations);
        self.run(move || {
            let params = Params::new(iterations).map_err(|error| Error::internal(error.to_string()))?;
            let hash: PasswordHash = Pbkdf2::default()
                .hash_password_customized(password.as_bytes(), &salt, None, None, params)
                .map_err(|error| Error::internal(error.to_string()))?;
            Ok(hash.to_string())
        })
        .await?
    }

    /// Whether the password has this hash. Without a hash it takes as long and says no.
    pub async fn verify(&self, password: &str, phc: Option<&str>) -> Result<bool> {
        let known = phc.is_some();
        let (password, phc) = (password.to_owned(), phc.unwrap_or(&self.dummy).to_owned());
        self.run(move || {
            let Ok(hash) = PasswordHash::new(&phc) else { return false };
            Pbkdf2::default().verify_password(password.as_bytes(), &hash).is_ok() && known
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
