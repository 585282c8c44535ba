//! What a process waits for before it serves, as `/readyz` tells it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use gochat_core::error::{ErrorKind, Result};

/// Pause between tries of something that is not there yet.
const TRY_EVERY: Duration = Duration::from_millis(250);

/// Whether this process serves, and if not, why. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Option<String>>>);

impl Default for Readiness {
    fn default() -> Self {
        Readiness(Arc::new(Mutex::new(Some("its start".into()))))
    }
}

impl Readiness {
    /// Tries until it works, and meanwhile says that this process waits for `what`. Roles start in any order: whoever is away now
    /// comes later.
    ///
    /// # Errors
    /// What waiting cannot mend: a refusal instead of an absence.
    pub async fn wait_for<T, F>(&self, what: &str, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut told = false;
        loop {
            match attempt().await {
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) => {
                    self.set(Some(format!("{what}: {}", error.message)));
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(?error, "waiting for {what}");
                    }
                    tokio::time::sleep(TRY_EVERY).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// It serves from now on.
    pub fn ready(&self) {
        self.set(None);
    }

    /// It ends: nothing new is to be sent its way.
    pub fn draining(&self) {
        self.set(Some("the end of the drain".into()));
    }

    /// What it waits for; `None` if it serves.
    pub fn waits_for(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, waits_for: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = waits_for;
    }

    /// `/healthz`: the process lives. `/readyz`: it serves, or what it waits for.
    pub fn routes(&self) -> Router {
        let readiness = self.clone();
        Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(move || async move { readiness.answer() }))
    }

    fn answer(&self) -> Response {
        match self.waits_for() {
            None => Json(serde_json::json!({"ready": true})).into_response(),
            Some(what) => (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({"ready": false, "waits_for": what}))).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use gochat_core::error::Code;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_what_is_away_and_not_for_what_refuses() {
        let readiness = Readiness::default();
        let mut tries = 0;
        let came = readiness.wait_for("the store", || {
            tries += 1;
            std::future::ready(if tries < 3 { Err(Code::Unavailable.into()) } else { Ok(tries) })
        });
        assert_eq!(came.await.unwrap(), 3);
        assert!(readiness.waits_for().is_some_and(|what| what.contains("the store")));
        let refused = readiness.wait_for("the store", || std::future::ready(Err::<(), _>(Code::Denied.into()))).await;
        assert_eq!(refused.unwrap_err().code, Code::Denied);
        readiness.ready();
        assert_eq!(readiness.waits_for(), None);
    }
}
