//! Public suites that prove a backend against the contract of its port.
//!
//! A suite is a table of cases, each a plain function that takes the port and panics where the contract is broken; what a
//! case proves stands above it. Every case brings ids of its own, so one instance can run them all, and run them again.
//!
//! ```ignore
//! #[tokio::test(flavor = "multi_thread")]
//! async fn my_store_keeps_the_contract() {
//!     conformance::run_all(conformance::store::CASES, Arc::new(MyStore::open()?)).await;
//! }
//! ```

#![allow(clippy::missing_panics_doc, reason = "a case panics where the contract is broken: that is what it is for")]

use std::{any::Any, fmt, panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};

pub mod bus;
pub mod cache;
pub mod routes;
pub mod store;
mod world;

/// A case of a suite for the port `P`.
pub struct Case<P: ?Sized + 'static> {
    /// What the backend does, as the name of the function that proves it.
    pub name: &'static str,
    /// Proves it, or panics.
    pub run: fn(Arc<P>) -> BoxFuture<'static, ()>,
}

impl<P: ?Sized> fmt::Debug for Case<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Runs every case, one after the other, and panics at the end with the names of those that failed. Needs a tokio runtime
/// with several threads: some cases race.
pub async fn run_all<P: ?Sized>(cases: &[Case<P>], port: Arc<P>) {
    let mut failed = Vec::new();
    for case in cases {
        if let Err(panic) = AssertUnwindSafe((case.run)(port.clone())).catch_unwind().await {
            failed.push(format!("{}: {}", case.name, text(&*panic)));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic")
}

/// A table of cases from the paths of their functions.
macro_rules! cases {
    ($port:ty: $($case:path),* $(,)?) => {
        &[$($crate::conformance::Case::<$port> { name: stringify!($case), run: |port| Box::pin($case(port)) }),*]
    };
}
use cases;
