//! Generated from `proto/`; a test compares. Nothing outside this crate sees these types.

#[allow(clippy::all, clippy::pedantic, missing_docs)]
#[rustfmt::skip]
pub mod bus;
#[allow(clippy::all, clippy::pedantic, missing_docs)]
#[rustfmt::skip]
pub mod client;
#[cfg(feature = "grpc")]
#[allow(clippy::all, clippy::pedantic, missing_docs)]
#[rustfmt::skip]
pub mod logic;
#[cfg(feature = "grpc")]
#[allow(clippy::all, clippy::pedantic, missing_docs)]
#[rustfmt::skip]
pub mod model;
#[cfg(feature = "grpc")]
#[allow(clippy::all, clippy::pedantic, missing_docs)]
#[rustfmt::skip]
pub mod repo;

/// Descriptors of what travels between roles, for gRPC reflection.
#[cfg(feature = "grpc")]
pub const DESCRIPTOR: &[u8] = include_bytes!("descriptor.bin");
#[cfg(feature = "grpc")]
mod secret;
