//! How GoChat talks: the gateway for clients, the bus and its wire format between roles.
//!
//! | module | what it provides | feature |
//! |---|---|---|
//! | [`bus`] | [`Bus`](gochat_core::ports::Bus) in this process, on Apache Kafka (`kafka`); records as protobuf | |
//! | `gateway` | HTTP and WebSocket for clients | `gateway` |

pub mod bus;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod pb;
