//! Roles as processes of their own, and the forms between one process and four services.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use gochat_core::error::Code;
use gochat_server::{
    config::Config,
    roles::Roles,
    wire::{self, Parts},
};
use http::Method;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    client::{User, http},
    process::free_port,
    sandbox::Sandbox,
    servers::Namespace,
};

/// Two users and a large group at a server of any form.
async fn a_short_conversation(server: &Sandbox) {
    let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
    let chat = ana.single(&bo).await;
    let (mut at_ana, mut at_bo) = (ana.connect().await, bo.connect().await);
    at_ana.say(&chat, "hello").await;
    assert_eq!(at_bo.next_of("message").await["text"], "hello");
    at_bo.say(&chat, "hello yourself").await;
    assert_eq!(at_ana.next_of("message").await["text"], "hello yourself");
    let texts: Vec<_> =
        bo.read_all(&chat).await.into_iter().filter(|message| message["kind"] == "text").map(|message| message["text"].clone()).collect();
    assert_eq!(texts, ["hello", "hello yourself"]);
    let crowd = server.crowd("crowd", 101).await;
    let (mut first, mut last) = (crowd.connect(0).await, crowd.connect(100).await);
    first.say(&crowd.conversation, "to many").await;
    assert_eq!(last.next_of("message").await["text"], "to many");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_on_mysql_is_a_server_too() {
    let space = Namespace::new();
    let server = Sandbox::start_with(&[("store.url", &space.mysql)]).await;
    a_short_conversation(&server).await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_behind_one_repo_role_serves_kafka_and_redis() {
    let server = Sandbox::services(&Namespace::new(), &[]).await;
    a_short_conversation(&server).await;
    server.shutdown().await;
}

/// What a role says on the admin listener without a token.
async fn readiness(admin: SocketAddr) -> Option<String> {
    let answer = timeout(Duration::from_secs(2), http(admin, Method::GET, "/readyz", None, &[], None)).await.ok()?;
    (answer.status == 503).then(|| answer.body["waits_for"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_start_in_any_order_and_say_what_they_wait_for() {
    let (space, folder) = (Namespace::new(), tempfile::tempdir().unwrap());
    let [repo, logic] = [free_port(), free_port()];
    let (repo_url, logic_url) = (format!("http://{repo}"), format!("http://{logic}"));
    let start = |name: &str, roles: Roles, more: &[(&str, &str)]| {
        let admin = free_port();
        let config = role_settings(&folder, name, &space, admin, more);
        (admin, tokio::spawn(wire::start(config, Parts { roles, ..Parts::default() })))
    };
    let (at_gateway, gateway) = start("gateway", Roles::GATEWAY, &[("logic.urls", &logic_url)]);
    let (at_task, task) = start("task", Roles::TASK, &[("repo.urls", &repo_url)]);
    let waits_for = async |admin: SocketAddr, what: &str| {
        let began = Instant::now();
        while !readiness_of(admin).await.is_some_and(|waits| waits.contains(what)) {
            assert!(began.elapsed() < Duration::from_secs(20), "{admin} does not say that it waits for {what}: {:?}", readiness_of(admin).await);
            sleep(Duration::from_millis(100)).await;
        }
    };
    waits_for(at_gateway, "a logic role").await;
    waits_for(at_task, "a repo role").await;
    let (at_logic, logic_role) = start("logic", Roles::LOGIC, &[("repo.urls", &repo_url), ("grpc.listen", &logic.to_string())]);
    waits_for(at_logic, "a repo role").await;
    let (_, repo_role) = start("repo", Roles::REPO, &[("store.url", &space.mysql), ("grpc.listen", &repo.to_string())]);
    let mut running = Vec::new();
    for role in [gateway, logic_role, task, repo_role] {
        let started = timeout(Duration::from_secs(30), role).await.expect("every role is there now").unwrap();
        running.push(started.expect("the role starts"));
    }
    let ana = User::register(running[0].address(), "ana").await;
    let bo = User::register(running[0].address(), "bo").await;
    let chat = ana.single(&bo).await;
    assert_eq!(ana.say(&chat, "in any order").await["seq"], 2);
    for role in running {
        role.shutdown(Duration::from_secs(5)).await;
    }
}

/// Reachable yet or not.
async fn readiness_of(admin: SocketAddr) -> Option<String> {
    tokio::net::TcpStream::connect(admin).await.ok()?;
    readiness(admin).await
}

fn role_settings(folder: &TempDir, name: &str, space: &Namespace, admin: SocketAddr, more: &[(&str, &str)]) -> Config {
    let (data, secrets, admin) = (folder.path().join(name), folder.path().join("secrets"), admin.to_string());
    let shared = space.settings();
    let shared = shared.iter().map(|(key, value)| (*key, value.as_str()));
    let own = [
        ("listen", "127.0.0.1:0"),
        ("admin.listen", &admin),
        ("data", data.to_str().unwrap()),
        ("secrets", secrets.to_str().unwrap()),
        ("passwords.iterations", "1000"),
    ];
    Config::with(&shared.chain(own).chain(more.iter().copied()).collect::<Vec<_>>()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_what_it_shares_with_others_is_refused_by_the_name_of_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    for (roles, given, missing) in [
        (Roles::LOGIC, vec![], "kafka.brokers"),
        (Roles::TASK, vec![("kafka.brokers", "127.0.0.1:1")], "redis.urls"),
        (Roles::LOGIC, vec![("kafka.brokers", "127.0.0.1:1"), ("redis.urls", "redis://127.0.0.1:1")], "repo.urls"),
        (Roles::GATEWAY, vec![("kafka.brokers", "127.0.0.1:1"), ("redis.urls", "redis://127.0.0.1:1")], "logic.urls"),
    ] {
        let config = Config::with(&[&[("data", data)], &given[..]].concat()).unwrap();
        let error = wire::start(config, Parts { roles, ..Parts::default() }).await.expect_err("something is missing");
        assert!(error.message.contains(missing), "{error}");
    }
    let wrong = [("data", data), ("listen", "127.0.0.1:0"), ("store.url", "mysql://im:im@127.0.0.1:1/nothing"), ("redis.urls", "not an address")];
    let error = timeout(
        Duration::from_secs(20),
        wire::start(Config::with(&wrong[..2].iter().chain(&wrong[3..]).copied().collect::<Vec<_>>()).unwrap(), Parts::default()),
    );
    assert_eq!(error.await.expect("nothing is waited for that is wrong").expect_err("no address").code, Code::InvalidField);
}

/// The commands of an operator against the real servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_and_shown_and_a_schema_migrated_by_commands() {
    let (space, folder) = (Arc::new(Namespace::new()), tempfile::tempdir().unwrap());
    let run = |arguments: &[&str]| {
        let mut command = crate::process::gochat();
        command.args(arguments).env("GOCHAT_DATA", folder.path()).env("GOCHAT_STORE_URL", &space.mysql);
        for (key, value) in space.settings() {
            command.env(format!("GOCHAT_{}", key.to_uppercase().replace('.', "_")), value);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    tokio::task::block_in_place(|| {
        assert!(run(&["migrate"]).contains("up to date"));
        assert!(run(&["migrate"]).contains("up to date"), "a second time changes nothing");
        let topics = run(&["topics"]);
        for topic in ["im-upstream-topic", "im-task-topic", "im-dead-letter-topic"] {
            assert!(topics.contains(&format!("{}-{topic}", space.name)), "{topics}");
        }
        assert_eq!(run(&["dead-letters", "list"]), "", "nothing was put aside");
    });
}
