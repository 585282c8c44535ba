//! The logic role: decides what clients ask for. One file per flow; [`Logic`] is the handful of ports they share.
//!
//! ```text
//! accounts.rs       register, login, refresh, logout, devices, profile, operators     (flow 1)
//! send.rs           im-upstream-topic -> hooks -> append -> ack and dispatch -> commit (flows 2, 3)
//! conversation.rs   create, list, members, mute, leave                                (flow 5)
//! group.rs          everything that is done to a group                                (flow 6)
//! history.rs        history, sync, marks                                              (flows 2 to 4)
//! sweep.rs          dispatches again what a crash interrupted; dispatched.rs keeps the mark
//! ```

mod accounts;
mod conversation;
mod dispatched;
mod group;
mod history;
mod send;
mod sweep;

use std::{sync::Arc, time::Duration};

use crate::{
    auth::{Passwords, Tokens},
    dispatch::Dispatcher,
    ports::{Bus, Hook, Routes, Store},
    time::{Clock, IdGenerator},
};

/// What the logic role runs on.
#[derive(Clone, Debug)]
pub struct LogicPorts {
    /// Everything that is kept.
    pub store: Arc<dyn Store>,
    /// Records between roles.
    pub bus: Arc<dyn Bus>,
    /// Where devices are connected.
    pub routes: Arc<dyn Routes>,
    /// A host's own rules about messages.
    pub hooks: Vec<Arc<dyn Hook>>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// Ids and randomness.
    pub ids: Arc<dyn IdGenerator>,
}

/// How the logic role works.
#[derive(Clone, Debug)]
pub struct LogicSettings {
    /// Whether users are also found by the beginning of their name (decision 35).
    pub search_by_prefix: bool,
    /// Pause between two sweeps for entries that a crash left undispatched. It bounds how late members learn of what a logic role
    /// had stored when it crashed while others go on; where there is one role only, its next start sweeps.
    pub sweep_every: Duration,
}

impl Default for LogicSettings {
    fn default() -> Self {
        LogicSettings { search_by_prefix: false, sweep_every: Duration::from_secs(600) }
    }
}

/// The logic role. Serves gateways as [`LogicApi`](crate::ports::LogicApi) and consumes the upstream topic.
#[derive(Debug)]
pub struct Logic {
    pub(crate) ports: LogicPorts,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) passwords: Arc<Passwords>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) accounts: accounts::Accounts,
    pub(crate) sender: send::Sender,
    sweep_every: Duration,
}

impl Logic {
    /// A logic role on these ports. `payload_key` keys the payload hashes of messages: the same in every logic role.
    pub fn new(
        ports: LogicPorts,
        dispatcher: Arc<Dispatcher>,
        passwords: Arc<Passwords>,
        tokens: Arc<Tokens>,
        settings: LogicSettings,
        payload_key: crate::auth::PayloadKey,
    ) -> Arc<Self> {
        Arc::new(Logic {
            ports,
            dispatcher,
            passwords,
            tokens,
            accounts: accounts::Accounts::new(settings.search_by_prefix),
            sender: send::Sender::new(payload_key),
            sweep_every: settings.sweep_every,
        })
    }
}
