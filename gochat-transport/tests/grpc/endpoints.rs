//! Endpoints that come, go, and freeze.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use gochat_core::{
    error::Code,
    model::User,
    ports::{AccountsApi, Users},
};
use gochat_transport::grpc::{ClientSettings, RepoClient, Services};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    fake::{Fake, answer},
    setup::{Running, caller, logic_client, nobody, repo_client, repo_client_with, settings},
};

fn quick() -> Fake {
    Fake::new(|_| async { answer(None::<User>) })
}

/// Connections to a server that stop passing anything when they are told to freeze: what a stopped process looks like.
struct Freezer {
    address: SocketAddr,
    frozen: Arc<AtomicBool>,
}

impl Freezer {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, frozen) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let state = frozen.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(from_client, to_server, state.clone()));
                tokio::spawn(pass(from_server, to_client, state.clone()));
            }
        });
        Freezer { address, frozen }
    }

    fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }
}

async fn pass(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, frozen: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        while frozen.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_vanishes_is_found_again_when_it_comes_back() {
    let server = Running::repo(quick()).await;
    let address = server.address;
    let client = repo_client(&[address]);
    client.user_by_name("u").await.unwrap();
    server.kill().await;
    let began = Instant::now();
    let error = client.user_by_name("u").await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains(&address.to_string()), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1), "nobody waits for a port where nobody listens");

    let server = Running::start_at(address, Services::default().repo(Arc::new(quick()))).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.user_by_name("u").await.unwrap();
    server.stop().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_between_two_calls_goes_unnoticed() {
    let server = Running::repo(quick()).await;
    let (address, client) = (server.address, repo_client(&[server.address]));
    for _ in 0..5 {
        client.user_by_name("u").await.unwrap();
    }
    server.kill().await;
    let server = Running::start_at(address, Services::default().repo(Arc::new(quick()))).await;
    client.user_by_name("u").await.unwrap();
    server.stop().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_spread_and_one_dead_endpoint_of_two_costs_nothing() {
    let (one, two) = (quick(), quick());
    let (first, second) = (Running::repo(one.clone()).await, Running::repo(two.clone()).await);
    let client = repo_client(&[first.address, second.address, nobody()]);
    client.ready().await.unwrap();
    for _ in 0..60 {
        client.user_by_name("u").await.unwrap();
    }
    let counts = (one.calls().len(), two.calls().len());
    assert!(counts.0 >= 20 && counts.1 >= 20 && counts.0 + counts.1 == 60, "{counts:?}");
    first.kill().await;
    let began = Instant::now();
    for _ in 0..60 {
        client.user_by_name("u").await.unwrap();
    }
    assert_eq!(two.calls().len(), counts.1 + 60, "what was meant for the dead one went to the other");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_accepts_and_never_answers_is_not_used() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Running::repo(quick()).await;
    let client = repo_client(&[silent.local_addr().unwrap(), server.address]);
    let began = Instant::now();
    for _ in 0..100 {
        client.user_by_name("u").await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // Alone it is known as what it is, after the time that a connection may take.
    let client = repo_client(&[silent.local_addr().unwrap()]);
    let error = client.user_by_name("u").await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("does not answer"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_freezes_costs_one_deadline_and_is_left_out_until_it_lives() {
    let (one, two) = (quick(), quick());
    let (first, second) = (Running::repo(one.clone()).await, Running::repo(two).await);
    let freezer = Freezer::before(first.address).await;
    let client = repo_client_with(&[freezer.address, second.address], &ClientSettings { deadline: Duration::from_millis(800), ..settings() });
    client.ready().await.unwrap();
    while one.calls().is_empty() {
        client.user_by_name("u").await.unwrap();
    }
    freezer.freeze(true);
    let began = Instant::now();
    let mut failed = 0;
    for _ in 0..40 {
        if let Err(error) = client.user_by_name("u").await {
            assert_eq!(error.code, Code::Unavailable);
            failed += 1;
        }
    }
    assert_eq!(failed, 1, "the first one that met it");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let before = one.calls().len();
    freezer.freeze(false);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let until = Instant::now() + Duration::from_secs(8);
    while one.calls().len() < before + 5 {
        assert!(Instant::now() < until, "it is used again");
        client.user_by_name("u").await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_connection_is_noticed_by_its_silence_alone() {
    let store = Fake::new(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        answer(None::<User>)
    });
    let server = Running::repo(store.clone()).await;
    let freezer = Freezer::before(server.address).await;
    let client = repo_client_with(&[freezer.address], &ClientSettings { deadline: Duration::from_secs(40), ..settings() });
    let call = tokio::spawn(async move { client.user_by_name("u").await });
    while store.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    freezer.freeze(true);
    let began = Instant::now();
    assert_eq!(call.await.unwrap().unwrap_err().code, Code::Unavailable);
    // The ping after 10 s of silence, 3 s for its answer, 2 s for the new connection that the repetition wants.
    assert!((5..17).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_endpoint_that_answers_others_is_not_taken_for_frozen() {
    let count = Arc::new(AtomicUsize::new(0));
    let store = Fake::new(move |_| {
        let slow = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if slow {
                tokio::time::sleep(Duration::from_secs(9)).await;
            }
            answer(None::<User>)
        }
    });
    let server = Running::repo(store).await;
    let client = repo_client_with(&[server.address], &ClientSettings { deadline: Duration::from_millis(400), ..settings() });
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.user_by_name("slow").await }
    });
    while !slow.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.user_by_name("quick").await.unwrap();
    }
    assert_eq!(slow.await.unwrap().unwrap_err().code, Code::Unavailable);
    client.user_by_name("quick").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_an_endpoint_may_have_are_refused_at_once() {
    let server = Running::repo(Fake::slow(Duration::from_millis(800))).await;
    let client = repo_client_with(&[server.address], &ClientSettings { in_flight_max: 3, ..settings() });
    client.ready().await.unwrap();
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.user_by_name("u").await })
        })
        .collect();
    let (mut done, mut refused) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => done += 1,
            Err(error) => {
                assert_eq!(error.code, Code::Overloaded);
                assert!(error.retry_after.is_some());
                refused += 1;
            }
        }
    }
    assert_eq!((done, refused), (3, 2));
    client.user_by_name("u").await.unwrap();
}

/// Two servers of both roles. Whichever gets the first call says so and never answers it; all others are answered.
async fn one_of_two_dies(calls: &Arc<AtomicUsize>) -> (Vec<Running>, tokio::sync::mpsc::UnboundedReceiver<usize>) {
    let (hung, hangs) = tokio::sync::mpsc::unbounded_channel();
    let mut servers = Vec::new();
    for at in 0..2 {
        let (calls, hung) = (calls.clone(), hung.clone());
        let port = Fake::new(move |method| {
            let (first, hung, logout) = (calls.fetch_add(1, Ordering::SeqCst) == 0, hung.clone(), method == "logout");
            async move {
                if first {
                    hung.send(at).unwrap();
                    std::future::pending::<()>().await;
                }
                if logout { answer(()) } else { answer(Vec::<User>::new()) }
            }
        });
        servers.push(Running::start(Services::default().repo(Arc::new(port.clone())).logic(Arc::new(port))).await);
    }
    (servers, hangs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_run_is_repeated_only_where_the_contract_lets_it() {
    // What the call is, whether it must succeed on the second endpoint, and how often it is sent.
    for (what, succeeds, sent) in [("the store", true, 2), ("reading logic", true, 2), ("writing logic", false, 1)] {
        let calls = Arc::new(AtomicUsize::new(0));
        let (mut servers, mut hangs) = one_of_two_dies(&calls).await;
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        let call = tokio::spawn(async move {
            match what {
                "the store" => repo_client(&addresses).users_by_prefix("", None, 1).await.map(drop),
                "reading logic" => logic_client(&addresses).list_users(None, 1).await.map(drop),
                _ => logic_client(&addresses).logout(&caller()).await,
            }
        });
        let hung = hangs.recv().await.unwrap();
        servers.remove(hung).kill().await;
        let outcome = call.await.unwrap();
        assert_eq!(outcome.is_ok(), succeeds, "{what}: {outcome:?}");
        assert!(outcome.is_ok() || outcome.is_err_and(|error| error.code == Code::TimeoutUnknown), "{what}");
        assert_eq!(calls.load(Ordering::SeqCst), sent, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_checked_when_the_client_is_made() {
    for wrong in [&["https://localhost:1".to_owned()][..], &["http://".to_owned()], &["not an address".to_owned()], &[]] {
        assert_eq!(RepoClient::new(wrong, &settings()).unwrap_err().code, Code::InvalidField, "{wrong:?}");
    }
    // A name is resolved when it is used.
    let server = Running::repo(quick()).await;
    let client = RepoClient::new(&[format!("localhost:{}", server.address.port())], &settings()).unwrap();
    client.user_by_name("u").await.unwrap();
}
