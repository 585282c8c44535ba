//! Passwords and tokens: what our own accounts are proved with. A host application that owns its users needs none of it
//! (decision 26).

mod authenticator;
mod limiter;
mod passwords;
mod payload;
mod secret;
mod tokens;

pub use authenticator::TokenAuthenticator;
pub use limiter::LoginLimiter;
pub use passwords::{PasswordSettings, Passwords};
pub use payload::PayloadKey;
pub use secret::Secret;
pub use tokens::{RefreshToken, TokenSettings, Tokens};
