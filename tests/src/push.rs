//! What a push says: nothing of the message, unless the operator wants it said.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gochat_core::{
    Result, async_trait,
    model::{Notice, PushOutcome},
    ports::PushProvider,
};
use serde_json::json;

use crate::{
    client::{PATIENCE, User},
    sandbox::Sandbox,
};

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Notice>>);

#[async_trait]
impl PushProvider for Recorder {
    async fn push(&self, notices: &[Notice]) -> Result<Vec<PushOutcome>> {
        self.0.lock().unwrap().extend_from_slice(notices);
        Ok(vec![PushOutcome::Sent; notices.len()])
    }
}

/// (title, text) of the pushes for one text and one picture, in the order of the messages.
async fn said(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let recorder = Arc::new(Recorder::default());
    let server = Sandbox::start_pushing(settings, recorder.clone()).await;
    let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
    let chat = ana.single(&bo).await;
    ana.say(&chat, "Dinner at eight?").await;
    let picture = json!({"client_msg_id": crate::client::new_id(), "kind": "image", "data": {"url": "https://example.org/a.png"}});
    ana.post(&format!("/conversations/{chat}/messages"), picture).await.expect(201);
    let began = tokio::time::Instant::now();
    while recorder.0.lock().unwrap().len() < 2 {
        assert!(began.elapsed() < PATIENCE, "the pushes do not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut notices = recorder.0.lock().unwrap().clone();
    notices.sort_by_key(|notice| notice.seq);
    notices.into_iter().map(|notice| (notice.title, notice.text)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_message_is_withheld_by_default() {
    let withheld = ("Work".to_owned(), "Somebody wrote".to_owned());
    assert_eq!(said(&[("push.title", "Work"), ("push.text", "Somebody wrote")]).await, [withheld.clone(), withheld]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_setting_it_names_the_sender_and_the_text() {
    let said = said(&[("push.include_text", "true")]).await;
    assert_eq!(said, [("ana".to_owned(), "Dinner at eight?".to_owned()), ("ana".to_owned(), "New message".to_owned())]);
}
