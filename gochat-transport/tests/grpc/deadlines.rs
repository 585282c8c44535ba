//! Calls that take too long, are too large, or are not known.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gochat_core::{
    error::Code,
    model::User,
    ports::{AccountsApi, AppendBatch, LoginRequest, Messages, Users},
};
use gochat_transport::{
    grpc::{ClientSettings, LogicClient, MESSAGE_BYTES_MAX, Services},
    pb::repo::{UserByNameRequest, repo_service_client::RepoServiceClient},
};
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};

use crate::{
    fake::{Fake, answer},
    setup::{Running, caller, draft, logic_client, repo_client, repo_client_with, settings},
};

fn hasty() -> ClientSettings {
    ClientSettings { deadline: Duration::from_millis(300), hash_deadline: Duration::from_secs(2), ..settings() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_at_its_deadline_and_the_error_says_what_is_known() {
    let server = Running::repo(Fake::slow(Duration::from_secs(9))).await;
    let began = Instant::now();
    let error = repo_client_with(&[server.address], &hasty()).user_by_name("u").await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "the word of the store's contract: {error:?}");
    assert!((250..900).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());

    let server = Running::logic(Fake::slow(Duration::from_secs(9))).await;
    let client = LogicClient::new(&[server.address.to_string()], &hasty()).unwrap();
    assert_eq!(client.logout(&caller()).await.unwrap_err().code, Code::TimeoutUnknown);
    assert_eq!(client.login_log(&caller(), 1).await.unwrap_err().code, Code::Unavailable, "a reading call changed nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_may_take_longer_than_other_calls() {
    let logic = Fake::new(|_| async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        Err(Code::LoginFailed.into())
    });
    let server = Running::logic(logic).await;
    let client = LogicClient::new(&[server.address.to_string()], &hasty()).unwrap();
    let login = LoginRequest { username: "u".into(), password: "p".into(), device_id: None, device_name: None, address: String::new() };
    assert_eq!(client.login(&login).await.unwrap_err().code, Code::LoginFailed);
    assert_eq!(client.logout(&caller()).await.unwrap_err().code, Code::TimeoutUnknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_stops_waiting_at_the_callers_deadline() {
    /// Notes that it was dropped.
    struct Left(Arc<AtomicBool>);
    impl Drop for Left {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let left = Arc::new(AtomicBool::new(false));
    let note = left.clone();
    let store = Fake::new(move |_| {
        let left = Left(note.clone());
        async move {
            tokio::time::sleep(Duration::from_secs(9)).await;
            drop(left);
            answer(None::<User>)
        }
    });
    let server = Running::repo(store).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let mut request = tonic::Request::new(UserByNameRequest { username: "u".into() });
    request.set_timeout(Duration::from_millis(400));
    let status = RepoServiceClient::new(channel).user_by_name(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status:?}");
    assert!(left.load(Ordering::SeqCst), "nobody waits any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_append_passes_and_a_larger_one_is_refused_before_it_is_sent() {
    let store = Fake::new(|_| async { answer(Vec::<gochat_core::error::Result<gochat_core::ports::Appended>>::new()) });
    let server = Running::repo(store.clone()).await;
    let client = repo_client_with(&[server.address], &ClientSettings { deadline: Duration::from_secs(30), ..settings() });
    let body = "x".repeat(gochat_core::limits::BODY_BYTES_MAX);
    let batch = |drafts| AppendBatch { drafts: vec![draft(body.clone()); drafts], dispatched: Vec::new() };
    assert!(client.append(&batch(gochat_core::limits::APPEND_DRAFTS_MAX)).await.is_ok());
    let too_many = MESSAGE_BYTES_MAX / body.len() + 1;
    assert_eq!(client.append(&batch(too_many)).await.unwrap_err().code, Code::TooLarge);
    assert_eq!(store.calls().len(), 1);
    // The server has the same limit for clients that are not ours.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut plain = RepoServiceClient::new(endpoint.connect().await.unwrap()).max_encoding_message_size(usize::MAX);
    let status = plain.user_by_name(UserByNameRequest { username: "u".repeat(MESSAGE_BYTES_MAX + 1) }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status:?}");
    assert!(client.append(&batch(1)).await.is_ok(), "the endpoint is none the worse for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_above_the_limit_is_told_as_such() {
    let store = Fake::new(|_| async { answer(vec![crate::setup::user(&"u".repeat(MESSAGE_BYTES_MAX))]) });
    let server = Running::repo(store).await;
    let error = repo_client(&[server.address]).users_by_prefix("", None, 1).await.unwrap_err();
    assert_eq!(error.code, Code::TooLarge, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_that_the_other_version_lacks_is_a_part_that_is_away() {
    // A server of another version: it knows neither the method nor health.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let old = listener.local_addr().unwrap();
    let routes = tonic::service::Routes::default();
    let server = tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(TcpIncoming::from(listener)));
    let error = repo_client(&[old]).user_by_name("u").await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error:?}");
    assert!(error.message.contains("another version"), "{error:?}");
    assert_eq!(logic_client(&[old]).logout(&caller()).await.unwrap_err().code, Code::Unavailable, "it did not run");
    // Beside one of this version nobody notices.
    let new = Running::repo(Fake::new(|_| async { answer(None::<User>) })).await;
    let client = repo_client(&[old, new.address]);
    for _ in 0..6 {
        assert_eq!(client.user_by_name("u").await.unwrap(), None);
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_of_another_role_is_named_as_the_mistake() {
    let server = Running::start(Services::default().logic(Arc::new(Fake::failing(Code::Internal)))).await;
    let error = repo_client(&[server.address]).user_by_name("u").await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("does not serve gochat.v1.repo.RepoService"), "{error}");
}
