//! `Debug` of the messages that hold a secret: it says whose, never what.

use std::fmt;

use super::{logic, model};

macro_rules! without_secrets {
    ($($module:ident :: $($message:ident)::+ { $($shown:ident),* })*) => {$(
        impl fmt::Debug for $module::$($message)::+ {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($($message)::+))$(.field(stringify!($shown), &self.$shown))*.finish_non_exhaustive()
            }
        }
    )*};
}

without_secrets! {
    model::NewUser { id, username }
    model::Credential { user }
    model::NewSession { user, device }
    model::Rotation { at }
    model::refreshed::Repeated { caller }
    model::Registration { username }
    model::Login { username }
    model::Session { user, device_id }
    logic::RefreshRequest {}
    logic::ChangePasswordRequest { caller }
    logic::ResetPasswordRequest { username }
    logic::JoinByLinkRequest { caller }
}
