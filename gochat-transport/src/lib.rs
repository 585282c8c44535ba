//! How GoChat talks: the gateway for clients, the bus and its wire format between roles.
//!
//! | module | what it provides | feature |
//! |---|---|---|
//! | [`bus`] | [`Bus`](gochat_core::ports::Bus) in this process, on Apache Kafka (`kafka`); records as protobuf | |
//! | `gateway` | HTTP and WebSocket for clients | `gateway` |
//! | `grpc` | the store and the logic role in another process | `grpc` |

pub mod bus;
#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod pb;
