//! The server's binary as an operator meets it: settings, secrets, accounts, and clear words when it does not start.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use http::Method;
use serde_json::json;

use crate::{
    client::{PASSWORD, User, http},
    process::{Process, gochat},
};

/// Runs the binary to its end in an empty folder (or `home`).
fn run(home: &Path, arguments: &[&str], settings: &[(&str, &str)], input: &str) -> Output {
    let mut command = gochat();
    command.current_dir(home).args(arguments).envs(settings.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(30) {
            let _ = child.kill();
            panic!("gochat {arguments:?} does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// What a refusal to start says: exit code 1, one line, nothing on standard output.
#[track_caller]
fn refusal(output: &Output) -> String {
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

#[track_caller]
fn answer(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_setting_that_is_not_known_is_refused_with_the_nearest_one() {
    let home = tempfile::tempdir().unwrap();
    let by_environment = refusal(&run(home.path(), &[], &[("GOCHAT_LISTEM", "127.0.0.1:1")], ""));
    assert!(by_environment.contains("GOCHAT_LISTEM") && by_environment.contains("GOCHAT_LISTEN"), "{by_environment}");
    fs::write(home.path().join("gochat.toml"), "[store]\npage_max = 5\n").unwrap();
    let by_file = refusal(&run(home.path(), &["config"], &[], ""));
    assert!(by_file.contains("store.page_max") && by_file.contains("store.pages_max") && by_file.contains("gochat.toml"), "{by_file}");
    fs::write(home.path().join("gochat.toml"), "listen = [\n").unwrap();
    assert!(refusal(&run(home.path(), &["config"], &[], "")).contains("gochat.toml"));
    assert!(!home.path().join("gochat-data").exists(), "nothing is made before the settings are understood");
}

#[test]
fn a_value_that_is_not_allowed_is_refused_with_its_origin() {
    let home = tempfile::tempdir().unwrap();
    for (settings, words) in [
        (vec![("GOCHAT_STORE_READERS", "many")], vec!["store.readers", "GOCHAT_STORE_READERS", "many"]),
        (vec![("GOCHAT_LISTEN", "here")], vec!["listen", "GOCHAT_LISTEN"]),
        (vec![("GOCHAT_PRODUCTION", "true"), ("GOCHAT_LISTEN", "0.0.0.0:20999")], vec!["production", "plaintext"]),
        (vec![("GOCHAT_PUSH_PROVIDER", "webhook")], vec!["push.webhook_url", "push.webhook_secret"]),
        (vec![("GOCHAT_CONFIG", "missing.toml")], vec!["missing.toml"]),
    ] {
        let said = refusal(&run(home.path(), &[], &settings, ""));
        assert!(words.iter().all(|word| said.contains(word)), "{said} does not name {words:?}");
    }
    let flag = refusal(&run(home.path(), &["--listen", "nowhere"], &[], ""));
    assert!(flag.contains("--listen") && flag.contains("nowhere"), "{flag}");
}

#[test]
fn the_effective_settings_are_printed_with_their_origins_and_without_secrets() {
    let home = tempfile::tempdir().unwrap();
    let file =
        "listen = \"127.0.0.1:20001\"\n[push]\nprovider = \"webhook\"\nwebhook_url = \"http://127.0.0.1:9/\"\nwebhook_secret = \"do not show\"\n";
    fs::write(home.path().join("own.toml"), file).unwrap();
    let shown = |arguments: &[&str]| answer(&run(home.path(), arguments, &[("GOCHAT_DATA", "./elsewhere"), ("GOCHAT_LOG_LEVEL", "warn")], ""));
    let text = shown(&["config", "--config", "own.toml", "--listen", "127.0.0.1:20002"]);
    for line in [
        "listen = \"127.0.0.1:20002\"  # --listen",
        "data = \"./elsewhere\"  # GOCHAT_DATA",
        "log.level = \"warn\"  # GOCHAT_LOG_LEVEL",
        "push.provider = \"webhook\"  # own.toml",
        "push.webhook_secret = \"***\"  # own.toml",
        "threads = \"0\"  # default",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("do not show"));
    assert!(shown(&["config", "--config", "own.toml"]).contains("listen = \"127.0.0.1:20001\"  # own.toml"));
    let known = gochat_server::config::SETTINGS.len();
    assert_eq!(text.lines().count(), known, "every setting has a line");
    assert!(!home.path().join("elsewhere").exists(), "to print changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_the_owners_alone() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let server = tokio::task::block_in_place(|| Process::start(&data, &[]));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for secret in ["token-key", "payload-key", "admin-token"] {
        assert_eq!(mode(&data.join(secret)), 0o600, "{secret}");
    }
    let second = run(home.path(), &["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"], &[], "");
    assert!(refusal(&second).contains("in use by another server"), "{second:?}");
    let taken = run(home.path(), &["--data", "other", "--listen", &server.address.to_string()], &[], "");
    assert!(refusal(&taken).contains(&server.address.to_string()), "{taken:?}");
    let (code, _) = tokio::task::block_in_place(|| server.terminate());
    assert_eq!(code, Some(0));
    fs::set_permissions(data.join("token-key"), fs::Permissions::from_mode(0o640)).unwrap();
    let loose = run(home.path(), &["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"], &[], "");
    let said = refusal(&loose);
    assert!(said.contains("token-key") && said.contains("0600"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_managed_from_the_command_line() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let user = |arguments: &[&str], input: &str| {
        let arguments = [&["--data", data.to_str().unwrap(), "user"], arguments].concat();
        tokio::task::block_in_place(|| run(home.path(), &arguments, &[], input))
    };
    assert!(refusal(&user(&["list"], "")).contains("no server"));
    let server = tokio::task::block_in_place(|| Process::start(&data, &[("GOCHAT_PASSWORDS_ITERATIONS", "1000")]));
    let (ana, bo) = (User::register(server.address, "ana").await, User::register(server.address, "bo").await);
    let listed = answer(&user(&["list"], ""));
    assert!(listed.lines().count() == 2 && listed.contains(&ana.id) && listed.contains(&bo.id) && listed.contains("active"), "{listed}");

    // A disabled account is out everywhere within 2 s: sockets, tokens and logins.
    let chat = ana.single(&bo).await;
    let mut socket = ana.connect().await;
    answer(&user(&["disable", "ana"], ""));
    assert_eq!(socket.closed().await.0, 4002);
    let began = Instant::now();
    loop {
        let refused = ana.get("/users/me").await;
        if refused.status == 401 {
            assert_eq!(refused.code(), "SESSION_REVOKED");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(2), "the token is still good: {refused:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let login = |password: &str| {
        let body = json!({"username": "ana", "password": password});
        async move { http(server.address, Method::POST, "/api/v1/auth/login", None, &[], Some(&body)).await }
    };
    assert_eq!(login(PASSWORD).await.code(), "LOGIN_FAILED");
    let refresh = json!({"refresh_token": ana.refresh});
    assert_eq!(http(server.address, Method::POST, "/api/v1/auth/refresh", None, &[], Some(&refresh)).await.status, 401);
    assert!(answer(&user(&["list"], "")).lines().any(|line| line.starts_with("ana ") && line.contains("disabled")));
    bo.say(&chat, "are you there?").await;

    answer(&user(&["enable", "ana"], ""));
    let again = User::login(server.address, "ana", PASSWORD).await;
    assert_eq!(again.read_all(&chat).await.last().unwrap()["text"], "are you there?");

    answer(&user(&["reset-password", "ana"], "a new and longer one\n"));
    assert_eq!(login(PASSWORD).await.code(), "LOGIN_FAILED");
    let newest = User::login(server.address, "ana", "a new and longer one").await;
    assert_eq!(newest.get("/users/me").await.status, 200);

    assert!(refusal(&user(&["disable", "nobody"], "")).contains("USER_NOT_FOUND"));
    assert!(refusal(&user(&["reset-password", "ana"], "short\n")).contains("INVALID_FIELD"));
    assert_eq!(user(&["abolish", "ana"], "").status.code(), Some(2), "the usage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_a_newer_version_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let server = tokio::task::block_in_place(|| Process::start(&data, &[]));
    assert_eq!(tokio::task::block_in_place(|| server.terminate()).0, Some(0));
    let database = rusqlite::Connection::open(data.join("gochat.db")).unwrap();
    database.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000')", []).unwrap();
    drop(database);
    let said = refusal(&run(home.path(), &["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"], &[], ""));
    assert!(said.contains("29991231000000") && said.contains("newer version"), "{said}");
}
