use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::Tokens;
use crate::{
    error::{Code, Result},
    ids::{DeviceId, UserId},
    model::Caller,
    ports::{AccountsApi, Authenticator, Credentials, Identity},
    time::Clock,
};

/// How old what is known of a session may be: revocation is learnt within 2 s, also where no notice came.
const KNOWN_FOR: Duration = Duration::from_millis(1500);
/// Sessions that are remembered.
const KNOWN_MAX: usize = 50_000;

/// Our own accounts: access tokens of [`Tokens`], sessions as the logic role knows them.
#[derive(Debug)]
pub struct TokenAuthenticator {
    tokens: Arc<Tokens>,
    accounts: Arc<dyn AccountsApi>,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<(UserId, DeviceId), (Option<i64>, Instant)>>,
}

impl TokenAuthenticator {
    /// An authenticator for tokens of these keys.
    pub fn new(tokens: Arc<Tokens>, accounts: Arc<dyn AccountsApi>, clock: Arc<dyn Clock>) -> Self {
        TokenAuthenticator { tokens, accounts, clock, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(UserId, DeviceId), (Option<i64>, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, key: (UserId, DeviceId), epoch: Option<i64>) {
        let mut known = self.lock();
        if known.len() >= KNOWN_MAX {
            known.retain(|_, (_, at)| at.elapsed() < KNOWN_FOR);
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
        }
        known.insert(key, (epoch, Instant::now()));
    }
}

#[async_trait]
impl Authenticator for TokenAuthenticator {
    async fn verify(&self, credentials: &Credentials) -> Result<Identity> {
        self.tokens.verify(&credentials.token, self.clock.now())
    }

    async fn check(&self, caller: &Caller) -> Result<()> {
        let key = (caller.user, caller.device);
        let known = self.lock().get(&key).filter(|(_, at)| at.elapsed() < KNOWN_FOR).map(|(epoch, _)| *epoch);
        let epoch = match known {
            Some(epoch) => epoch,
            None => {
                let epoch = self.accounts.sessions(&[key]).await?.pop().flatten();
                self.remember(key, epoch);
                epoch
            }
        };
        if epoch == Some(caller.session_epoch) { Ok(()) } else { Err(Code::SessionRevoked.into()) }
    }

    fn revoked(&self, current: &Caller) {
        self.lock().remove(&(current.user, current.device));
    }
}
