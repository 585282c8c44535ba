use async_trait::async_trait;

use crate::{error::Result, model::Caller, ports::Port, time::Timestamp};

/// Who is asking. Our own accounts (JWT) are one implementation, a host's sessions another (decision 26).
///
/// # Contract
/// `verify` answers with `UNAUTHENTICATED` or `TOKEN_EXPIRED`, or with who the credentials were given to. It is
/// called once per connection and once per HTTP request, never per frame. `check` answers with `SESSION_REVOKED`
/// if that session ended more than two seconds ago (I22: revocation is learnt everywhere within 2 s). A WebSocket
/// connection is checked on the device's row instead, by [`AccountsApi::connect`](crate::ports::AccountsApi::connect).
#[async_trait]
pub trait Authenticator: Port {
    /// Proves who the credentials belong to.
    async fn verify(&self, credentials: &Credentials) -> Result<Identity>;
    /// Tells whether the session still holds.
    async fn check(&self, caller: &Caller) -> Result<()>;
    /// Learns at once that sessions of this device with a lower epoch ended.
    fn revoked(&self, current: &Caller);
}

/// What a request brings along.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Bearer token: from the `Authorization` header or the `auth` frame, never from a URL.
    pub token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(***)")
    }
}

/// A proved caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub caller: Caller,
    /// Until when the proof holds.
    pub expires_at: Timestamp,
}
