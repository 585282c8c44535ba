//! gRPC between roles over real sockets: calls, errors, endpoints that come and go, deadlines, health, reflection.

mod calls;
mod deadlines;
mod endpoints;
mod fake;
mod serving;
mod setup;
