//! The six flows of the seed, each run four times: over JSON frames, over protobuf frames, with every record between roles passed
//! through its protobuf form, and as four services with two gateways on the real MariaDB, Redis and Kafka.

/// Makes four tests of one.
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
            async fn protobuf_frames() {
                crate::frames::PROTOBUF.scope(true, async { flow(crate::sandbox::Sandbox::start().await).await }).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn records_as_bytes() {
                flow(crate::sandbox::Sandbox::start_wire().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn four_services() {
                flow(crate::sandbox::Sandbox::start_services().await).await;
            }
        }
    )*};
}

mod conversation;
mod group;
mod login;
mod offline;
mod send;
