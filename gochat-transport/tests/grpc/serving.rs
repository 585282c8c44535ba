//! Health, reflection and the end of a listener, as a plain gRPC client sees them.

use std::time::{Duration, Instant};

use gochat_core::{
    error::Code,
    model::User,
    ports::{AccountsApi, Users},
};
use gochat_transport::grpc::Services;
use std::sync::Arc;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use crate::{
    fake::{Fake, answer},
    setup::{Running, caller, logic_client, nobody, repo_client, user},
};

const REPO: &str = "gochat.v1.repo.RepoService";

async fn channel(server: &Running) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap()
}

async fn health(channel: &Channel, service: &str) -> Result<ServingStatus, tonic::Code> {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel.clone()).check(request).await.map(|reply| reply.get_ref().status()).map_err(|status| status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_what_serves_and_what_drains() {
    let server = Running::repo(Fake::failing(Code::Internal)).await;
    let channel = channel(&server).await;
    for service in ["", REPO] {
        assert_eq!(health(&channel, service).await, Ok(ServingStatus::Serving), "{service:?}");
    }
    assert_eq!(health(&channel, "gochat.v1.logic.LogicService").await, Err(tonic::Code::NotFound));

    let client = repo_client(&[server.address]);
    client.ready().await.unwrap();
    server.health.set_serving(false).await;
    for service in ["", REPO] {
        assert_eq!(health(&channel, service).await, Ok(ServingStatus::NotServing), "{service:?}");
    }
    let error = client.ready().await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("is not serving"), "{error}");
    server.health.set_serving(true).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_waited_for_is_named() {
    let (one, two) = (nobody(), nobody());
    let error = repo_client(&[one, two]).ready().await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.starts_with(&format!("waits for repo at http://{one}, http://{two}: ")), "{error}");
    let error = logic_client(&[one]).ready().await.unwrap_err();
    assert!(error.message.starts_with(&format!("waits for logic at http://{one}: ")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_tells_the_services_and_their_messages() {
    let server = Running::start(Services::default().repo(Arc::new(Fake::failing(Code::Internal)))).await;
    let mut client = ServerReflectionClient::new(channel(&server).await);
    let mut ask = async |request| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let mut replies = client.server_reflection_info(futures_util::stream::iter([request])).await.unwrap().into_inner();
        replies.message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await else { panic!("a list") };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, [REPO, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]);
    for (symbol, name) in [(REPO, &b"RepoService"[..]), ("gochat.v1.model.AppendBatch", b"AppendBatch"), ("gochat.v1.bus.Draft", b"client_msg_id")] {
        let MessageResponse::FileDescriptorResponse(file) = ask(MessageRequest::FileContainingSymbol(symbol.to_owned())).await else {
            panic!("{symbol} is not described")
        };
        assert!(file.file_descriptor_proto.iter().any(|file| file.windows(name.len()).any(|part| part == name)), "{symbol}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_calls_under_way_finish_and_takes_no_new_ones() {
    let store = Fake::slow(Duration::from_millis(700));
    let server = Running::repo(store.clone()).await;
    let (address, client) = (server.address, repo_client(&[server.address]));
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.user_by_name("u").await }
    });
    while store.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    let stopped = server.stop();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = client.user_by_name("u").await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error:?}");
    assert_eq!(call.await.unwrap().unwrap(), None);
    stopped.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(store.calls().len(), 1);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_outlasts_the_grace_is_cut_and_its_outcome_is_unknown() {
    let logic = Fake::new(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        answer(())
    });
    let services = Services::default().logic(Arc::new(logic.clone()));
    let server = Running::start_with(nobody(), services, Duration::from_millis(200)).await;
    let client = logic_client(&[server.address]);
    let call = tokio::spawn(async move { client.logout(&caller()).await });
    while logic.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    server.stop().await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(call.await.unwrap().unwrap_err().code, Code::TimeoutUnknown);
    assert_eq!(logic.calls().len(), 1, "what may have run is not sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_roles_may_share_a_listener() {
    let services = Services::default().repo(Arc::new(Fake::new(|_| async { answer(Some(user("u"))) })));
    let server = Running::start(services.logic(Arc::new(Fake::new(|_| async { answer(()) })))).await;
    let found: Option<User> = repo_client(&[server.address]).user_by_name("u").await.unwrap();
    assert_eq!(found, Some(user("u")));
    logic_client(&[server.address]).logout(&caller()).await.unwrap();
}
