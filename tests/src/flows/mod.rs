//! The six flows of the seed, each run twice: with records as they are, and with every record passed through its
//! protobuf form, so that nothing is shaped by one process only.

/// Makes two tests of one: on the plain bus and on the wire form.
macro_rules! flows {
    ($($(#[$doc:meta])* async fn $name:ident($server:ident) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn flow($server: crate::sandbox::Sandbox) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn plain() {
                flow(crate::sandbox::Sandbox::start().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn records_as_bytes() {
                flow(crate::sandbox::Sandbox::start_wire().await).await;
            }
        }
    )*};
}

mod conversation;
mod group;
mod login;
mod offline;
mod send;
