use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use gochat_core::{
    auth::Secret,
    error::{Code, Error, Result},
    model::{Notice, PushOutcome},
    ports::PushProvider,
    time::Clock,
};
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use sha2::Sha256;
use std::sync::Arc;
use tokio::{net::TcpStream, time::timeout};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Requests at the same time.
const AT_ONCE: usize = 8;

/// Posts each push as JSON to an address, signed so that the receiver knows whom it is from:
/// `X-GoChat-Signature: sha256=<hex HMAC-SHA256 of "<timestamp>.<id>.<body>">` with `X-GoChat-Timestamp` (milliseconds) and
/// `X-GoChat-Id` (the job: the same at every try). 2xx is `Sent`, 4xx `Refused`, everything else worth another try.
/// Redirects are not followed.
#[derive(Debug)]
pub struct WebhookPush {
    uri: Uri,
    host: String,
    secret: Secret<String>,
    clock: Arc<dyn Clock>,
}

impl WebhookPush {
    /// A webhook at an `http` address.
    pub fn new(url: &str, secret: String, clock: Arc<dyn Clock>) -> Result<Self> {
        let invalid = || Error::new(Code::InvalidField, format!("push.webhook_url {url:?} is not an http address"));
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let host = uri.authority().map(ToString::to_string).filter(|_| uri.scheme_str() == Some("http")).ok_or_else(invalid)?;
        Ok(WebhookPush { uri, host, secret: Secret::new(secret), clock })
    }

    fn signature(&self, timestamp: i64, id: &str, body: &[u8]) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.reveal().as_bytes()) else { unreachable!("HMAC takes a key of any length") };
        mac.update(format!("{timestamp}.{id}.").as_bytes());
        mac.update(body);
        mac.finalize().into_bytes().iter().fold(String::from("sha256="), |text, byte| text + &format!("{byte:02x}"))
    }

    async fn post(&self, notice: &Notice) -> PushOutcome {
        match timeout(TIMEOUT, self.request(notice)).await {
            Ok(Ok(status)) if (200..300).contains(&status) => PushOutcome::Sent,
            Ok(Ok(status)) if (400..500).contains(&status) && status != 408 && status != 429 => PushOutcome::Refused,
            Ok(Ok(status)) => {
                tracing::debug!(status, "the webhook did not take a push");
                PushOutcome::Failed
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the webhook could not be reached");
                PushOutcome::Failed
            }
            Err(_) => PushOutcome::Failed,
        }
    }

    async fn request(&self, notice: &Notice) -> std::result::Result<u16, Box<dyn std::error::Error + Send + Sync>> {
        let body = serde_json::to_vec(notice)?;
        let (timestamp, id) = (self.clock.now().0, notice.id.to_string());
        let address = if self.uri.port().is_some() { self.host.clone() } else { format!("{}:80", self.host) };
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::post(self.uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(http::header::HOST, &self.host)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header("X-GoChat-Timestamp", timestamp)
            .header("X-GoChat-Id", &id)
            .header("X-GoChat-Signature", self.signature(timestamp, &id, &body))
            .body(Full::new(Bytes::from(body)))?;
        Ok(sender.send_request(request).await?.status().as_u16())
    }
}

#[async_trait]
impl PushProvider for WebhookPush {
    async fn push(&self, notices: &[Notice]) -> Result<Vec<PushOutcome>> {
        let mut outcomes = Vec::with_capacity(notices.len());
        for part in notices.chunks(AT_ONCE) {
            outcomes.extend(join_all(part.iter().map(|notice| self.post(notice))).await);
        }
        Ok(outcomes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::{Router, http::HeaderMap, routing::post};
    use gochat_core::{
        ids::{ConversationId, DeviceId, PushJobId, Seq, UserId},
        time::{ManualClock, Timestamp},
    };
    use uuid::Uuid;

    use super::*;

    type Seen = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

    /// A receiver that answers with the number in its path and keeps what it got.
    async fn receiver() -> (String, Seen) {
        let seen = Seen::default();
        let keep = seen.clone();
        let answer = move |path: axum::extract::Path<u16>, headers: HeaderMap, body: Bytes| async move {
            keep.lock().unwrap().push((headers, body));
            http::StatusCode::from_u16(path.0).unwrap()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/{status}", post(answer))).await });
        (address, seen)
    }

    fn notice() -> Notice {
        Notice {
            id: PushJobId::from(Uuid::now_v7()),
            user_id: UserId::from(Uuid::now_v7()),
            device_id: DeviceId::from(Uuid::now_v7()),
            conversation_id: ConversationId::from(Uuid::now_v7()),
            seq: Seq(7),
            title: "GoChat".into(),
            text: "New message".into(),
        }
    }

    #[tokio::test]
    async fn a_push_is_posted_with_a_signature_that_its_receiver_can_check() {
        let (address, seen) = receiver().await;
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
        let webhook = WebhookPush::new(&format!("{address}/204"), "secret".into(), clock.clone()).unwrap();
        let notice = notice();
        assert_eq!(webhook.push(std::slice::from_ref(&notice)).await.unwrap(), [PushOutcome::Sent]);
        let (headers, body) = seen.lock().unwrap().remove(0);
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!((header("x-gochat-id"), header("x-gochat-timestamp")), (notice.id.to_string(), clock.now().0.to_string()));
        let mut mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
        mac.update(format!("{}.{}.", clock.now().0, notice.id).as_bytes());
        mac.update(&body);
        let signature = header("x-gochat-signature");
        let hex = signature.strip_prefix("sha256=").unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        mac.verify_slice(&bytes).expect("the signature");
        let sent: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&sent["seq"], &sent["text"]), (&7.into(), &"New message".into()));
    }

    #[tokio::test]
    async fn each_answer_leads_to_its_outcome() {
        let (address, _) = receiver().await;
        for (status, outcome) in [
            (200, PushOutcome::Sent),
            (404, PushOutcome::Refused),
            (429, PushOutcome::Failed),
            (503, PushOutcome::Failed),
            (302, PushOutcome::Failed),
        ] {
            let webhook =
                WebhookPush::new(&format!("{address}/{status}"), "secret".into(), Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)))).unwrap();
            assert_eq!(webhook.push(&[notice(), notice()]).await.unwrap(), [outcome, outcome], "{status}");
        }
        let nobody = WebhookPush::new("http://127.0.0.1:1/", "secret".into(), Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)))).unwrap();
        assert_eq!(nobody.push(&[notice()]).await.unwrap(), [PushOutcome::Failed]);
        assert!(WebhookPush::new("https://example.org", "secret".into(), Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)))).is_err());
    }
}
