//! Accounts and sessions (flow 1).
//!
//! ```text
//! login: shape -> limiter -> user and password hash -> verify on the hashing pool (unknown users too)
//!        -> record_login: device, session, refresh token, login log in one transaction -> access and refresh token
//! ```
//!
//! Invariant: unknown, wrong and disabled are one answer at one cost, and all of them stand in the login log.

use std::time::Duration;

use async_trait::async_trait;

use super::Logic;
use crate::{
    auth::{LoginLimiter, RefreshToken},
    error::{Code, Error, Result},
    ids::{DeviceId, FamilyId, UserId},
    limits::{DEVICE_NAME_CHARS_MAX, PAGE_MAX, PASSWORD_BYTES_MAX},
    model::{
        Caller, Connected, Credential, Device, LoginAttempt, LoginOutcome, NewSession, NewUser, ProfileChange, Refreshed, Rotation, User, UserStatus,
    },
    ports::{AccountsApi, LoginRequest, RegisterRequest, Session},
    rules,
};

/// How long a used refresh token may be shown again for the same successor: an answer may get lost.
const REFRESH_GRACE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Accounts {
    search_by_prefix: bool,
    limiter: LoginLimiter,
}

impl Accounts {
    pub(crate) fn new(search_by_prefix: bool) -> Self {
        Accounts { search_by_prefix, limiter: LoginLimiter::default() }
    }
}

#[async_trait]
impl AccountsApi for Logic {
    async fn register(&self, request: &RegisterRequest) -> Result<User> {
        let username = rules::username(&request.username)?;
        rules::check_password(&request.password)?;
        let display_name = rules::display_name(request.display_name.as_deref().unwrap_or(&username))?;
        // Asked before the hash, which is dear; decided by the store's unique key.
        if self.ports.store.user_by_name(&username).await?.is_some() {
            return Err(Error::new(Code::UsernameTaken, format!("the user name {username} is taken")));
        }
        let password_phc = Some(self.passwords.hash(&request.password).await?);
        let id = UserId::from(self.ports.ids.uuid());
        self.ports
            .store
            .create_user(&NewUser { id, username, display_name, password_phc, external_id: None, created_at: self.ports.clock.now() })
            .await
    }

    async fn login(&self, request: &LoginRequest) -> Result<Session> {
        let username = rules::username(&request.username)?;
        let device_name = device_name(request.device_name.as_deref())?;
        if request.password.len() > PASSWORD_BYTES_MAX {
            return Err(Error::new(Code::TooLarge, format!("a password has at most {PASSWORD_BYTES_MAX} bytes")));
        }
        self.accounts.limiter.check(&username, &request.address)?;
        let user = self.ports.store.user_by_name(&username).await?;
        let credential = match &user {
            Some(user) => self.ports.store.credential(user.id).await?,
            None => None,
        };
        let right = self.passwords.verify(&request.password, credential.as_ref().map(|credential| credential.phc.as_str())).await?;
        let user = match user {
            Some(user) if right && user.status == UserStatus::Active => user,
            user => {
                self.accounts.limiter.failed(&username, &request.address);
                let outcome = match &user {
                    None => LoginOutcome::UnknownUser,
                    Some(_) if !right => LoginOutcome::WrongPassword,
                    Some(_) => LoginOutcome::Disabled,
                };
                let attempt = LoginAttempt {
                    user: user.map(|user| user.id),
                    username,
                    device: request.device_id,
                    outcome,
                    address: request.address.clone(),
                    at: self.ports.clock.now(),
                };
                self.ports.store.record_failed_logins(&[attempt]).await?;
                return Err(Code::LoginFailed.into());
            }
        };
        self.accounts.limiter.succeeded(&username, &request.address);
        if let Some(credential) = credential.filter(|credential| self.passwords.is_outdated(&credential.phc)) {
            let phc = self.passwords.hash(&request.password).await?;
            self.ports.store.set_credential(&Credential { phc, ..credential }, None).await?;
        }
        let device = request.device_id.unwrap_or_else(|| DeviceId::from(self.ports.ids.uuid()));
        self.begin_session(user, device, device_name, request.address.clone()).await
    }

    async fn refresh(&self, refresh_token: &str) -> Result<Session> {
        let refused = || Error::from(Code::RefreshRefused);
        let presented = RefreshToken::parse(refresh_token).ok_or_else(refused)?;
        let successor = RefreshToken::generate(&*self.ports.ids);
        let now = self.ports.clock.now();
        let rotation = Rotation {
            presented_hash: presented.hash(),
            successor_hash: successor.hash(),
            successor_sealed: presented.seal(&successor)?,
            expires_at: self.tokens.refresh_expires_at(now),
            grace: REFRESH_GRACE,
            at: now,
        };
        match self.ports.store.rotate_refresh(&rotation).await? {
            Refreshed::Rotated { caller, user } => self.session(caller, user, &successor),
            Refreshed::Repeated { caller, user, successor_sealed } => self.session(caller, user, &presented.open(&successor_sealed)?),
            Refreshed::Reused { caller } => {
                tracing::warn!(user.id = %caller.user, device.id = %caller.device, "a used refresh token was shown again: its session is ended");
                self.ended(&[caller]).await;
                Err(refused())
            }
            Refreshed::Refused => Err(refused()),
        }
    }

    async fn logout(&self, caller: &Caller) -> Result<()> {
        self.sign_out(&[(caller.user, caller.device)]).await.map(|_| ())
    }

    async fn connect(&self, callers: &[Caller]) -> Result<Vec<Result<Connected>>> {
        self.ports.store.connect(callers, self.ports.clock.now()).await
    }

    async fn sessions(&self, devices: &[(UserId, DeviceId)]) -> Result<Vec<Option<i64>>> {
        // Disabling an account ends its sessions: the device alone says whether there is one.
        let known = self.ports.store.devices(devices).await?;
        Ok(known.into_iter().map(|device| device.filter(|device| device.signed_in).map(|device| device.session_epoch)).collect())
    }

    async fn devices(&self, caller: &Caller) -> Result<Vec<Device>> {
        Ok(self.ports.store.devices_of(&[caller.user]).await?.pop().unwrap_or_default())
    }

    async fn sign_out_device(&self, caller: &Caller, device: DeviceId) -> Result<()> {
        if self.sign_out(&[(caller.user, device)]).await? == 0 {
            return Err(Code::DeviceNotFound.into());
        }
        Ok(())
    }

    async fn login_log(&self, caller: &Caller, limit: usize) -> Result<Vec<LoginAttempt>> {
        self.ports.store.login_log(caller.user, limit.clamp(1, PAGE_MAX)).await
    }

    async fn users(&self, _caller: &Caller, ids: &[UserId]) -> Result<Vec<User>> {
        if ids.len() > PAGE_MAX {
            return Err(Error::new(Code::InvalidField, format!("at most {PAGE_MAX} ids")));
        }
        Ok(self.ports.store.users(ids).await?.into_iter().flatten().collect())
    }

    async fn find_users(&self, caller: &Caller, query: &str, limit: usize) -> Result<Vec<User>> {
        if let Ok(id) = query.trim().parse() {
            return self.users(caller, &[id]).await;
        }
        let Ok(username) = rules::username(query) else { return Ok(Vec::new()) };
        if self.accounts.search_by_prefix {
            return self.ports.store.users_by_prefix(&username, None, limit.clamp(1, PAGE_MAX)).await;
        }
        Ok(self.ports.store.user_by_name(&username).await?.into_iter().collect())
    }

    async fn update_profile(&self, caller: &Caller, change: &ProfileChange) -> Result<User> {
        let display_name = change.display_name.as_deref().map(rules::display_name).transpose()?;
        if let Some(Some(url)) = &change.avatar_url {
            rules::check_url(url)?;
        }
        self.ports.store.update_profile(caller.user, &ProfileChange { display_name, avatar_url: change.avatar_url.clone() }).await
    }

    async fn change_password(&self, caller: &Caller, current: &str, new: &str) -> Result<()> {
        rules::check_password(new)?;
        let credential = self.ports.store.credential(caller.user).await?;
        if !self.passwords.verify(current, credential.as_ref().map(|credential| credential.phc.as_str())).await? {
            return Err(Error::new(Code::LoginFailed, "the current password is not right"));
        }
        let phc = self.passwords.hash(new).await?;
        let ended = self.ports.store.set_credential(&Credential { user: caller.user, phc }, Some(Some(caller.device))).await?;
        self.ended(&ended).await;
        Ok(())
    }

    async fn list_users(&self, after: Option<&str>, limit: usize) -> Result<Vec<User>> {
        self.ports.store.users_by_prefix("", after, limit.clamp(1, PAGE_MAX)).await
    }

    async fn set_user_status(&self, username: &str, status: UserStatus) -> Result<()> {
        let user = self.named(username).await?;
        let ended = self.ports.store.set_user_status(user.id, status).await?;
        self.ended(&ended).await;
        Ok(())
    }

    async fn reset_password(&self, username: &str, new: &str) -> Result<()> {
        rules::check_password(new)?;
        let user = self.named(username).await?;
        let phc = self.passwords.hash(new).await?;
        let ended = self.ports.store.set_credential(&Credential { user: user.id, phc }, Some(None)).await?;
        self.ended(&ended).await;
        Ok(())
    }
}

impl Logic {
    /// Signs a device in without a password: for accounts whose login somebody else has checked.
    pub async fn begin_session(&self, user: User, device: DeviceId, device_name: String, address: String) -> Result<Session> {
        let refresh = RefreshToken::generate(&*self.ports.ids);
        let now = self.ports.clock.now();
        let session = NewSession {
            user: user.id,
            device,
            device_name,
            family: FamilyId::from(self.ports.ids.uuid()),
            refresh_hash: refresh.hash(),
            refresh_expires_at: self.tokens.refresh_expires_at(now),
            address,
            at: now,
        };
        let (device, surplus) = self.ports.store.record_login(&session).await?;
        self.ended(&surplus).await;
        self.session(Caller { user: user.id, device: device.id, session_epoch: device.session_epoch }, user, &refresh)
    }

    fn session(&self, caller: Caller, user: User, refresh: &RefreshToken) -> Result<Session> {
        Ok(Session {
            access_token: self.tokens.issue(&caller, self.ports.clock.now())?,
            expires_in: self.tokens.access_seconds(),
            refresh_token: refresh.reveal(),
            user,
            device_id: caller.device,
        })
    }

    async fn named(&self, username: &str) -> Result<User> {
        self.ports.store.user_by_name(&rules::username(username)?).await?.ok_or_else(|| Code::UserNotFound.into())
    }

    async fn sign_out(&self, devices: &[(UserId, DeviceId)]) -> Result<usize> {
        let ended: Vec<Caller> = self.ports.store.sign_out(devices).await?.into_iter().flatten().collect();
        self.ended(&ended).await;
        Ok(ended.len())
    }

    /// Closes the connections of ended sessions. They are ended in the store already: a gateway that does not hear of it
    /// learns it with its next check.
    async fn ended(&self, sessions: &[Caller]) {
        if sessions.is_empty() {
            return;
        }
        if let Err(error) = self.dispatcher.revoked(sessions).await {
            tracing::warn!(?error, "gateways were not told of ended sessions");
        }
    }
}

fn device_name(name: Option<&str>) -> Result<String> {
    let name = name.unwrap_or_default().trim();
    if name.chars().count() > DEVICE_NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(Error::new(Code::InvalidField, format!("a device name has at most {DEVICE_NAME_CHARS_MAX} characters")));
    }
    Ok(name.to_owned())
}
