use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// What a gateway has counted since it started; `connections` and `authenticated` are of now.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct GatewayStats { $($(#[$doc])* pub $name: u64,)* }

        #[derive(Debug, Default)]
        pub(super) struct Counters { $(pub(super) $name: Counter,)* }

        impl Counters {
            pub(super) fn read(&self) -> GatewayStats { GatewayStats { $($name: self.$name.get(),)* } }
        }
    };
}

counters! {
    /// WebSocket connections that are open.
    connections;
    /// Those of them that are authenticated.
    authenticated;
    /// WebSocket connections that were ever opened.
    opened;
    /// Frames that came in.
    frames_in;
    /// Bytes that came in.
    bytes_in;
    /// Frames that were handed to connections.
    frames_out;
    /// Writes that carried them.
    writes;
    /// Sends that were accepted upstream.
    sends;
    /// Sends that were refused because the bus was full.
    overloaded;
    /// Times that pushes for a slow connection were dropped.
    resyncs;
    /// Connections that were closed because they made no progress.
    slow_closes;
    /// Connections that were closed for breaking the protocol.
    protocol_errors;
    /// Authentications that were refused.
    auth_refusals;
    /// Connections that were refused at the door: too many, or a foreign origin.
    refusals;
    /// Requests that were refused because of a rate.
    rate_refusals;
    /// Connections that gave way to a newer one of the same device.
    takeovers;
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn one(&self) {
        self.add(1);
    }

    pub(super) fn less_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
