//! The tests of GoChat: one binary, one file per flow.
//!
//! [`sandbox`] starts servers, [`client`] speaks to them as a stranger would: HTTP and WebSocket, nothing of ours below.
#![allow(missing_docs, clippy::missing_panics_doc, reason = "tests say what they check in their names")]

pub mod client;
pub mod frames;
pub mod process;
pub mod sandbox;
pub mod servers;

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod backends;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod checker;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod dispatch;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod flows;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod load;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod protocol;
#[cfg(test)]
mod push;
#[cfg(test)]
mod services;
#[cfg(test)]
mod settings;
