//! What the documents say is so: their links lead somewhere, the files they name exist, their snippets are the code, their
//! commands run.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use gochat_server::config::SETTINGS;

use crate::process::{Process, binary, gochat, without_settings};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn documents() -> Vec<String> {
    let mut documents = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/decisions"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                documents.push(format!("{folder}/{name}"));
            }
        }
    }
    documents
}

/// What stands between each `open` and the next `close`.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

#[test]
fn links_lead_somewhere() {
    for document in documents() {
        let text = read(&document);
        let folder = root().join(&document).parent().unwrap().to_owned();
        for target in between(&text, "](", ")").filter(|target| !target.contains("://") && !target.contains(' ')) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(&document) } else { folder.join(file) };
            assert!(path.exists(), "{document} links to {target}, which is not there");
            if !anchor.is_empty() {
                let slug = |heading: &str| {
                    let kept = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                    kept.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect::<String>()
                };
                let linked = std::fs::read_to_string(&path).unwrap();
                assert!(linked.lines().any(|line| line.starts_with('#') && slug(line) == anchor), "{document}: no heading {target}");
            }
        }
    }
}

#[test]
fn files_that_are_named_exist() {
    for document in documents() {
        for line in read(&document).lines() {
            for name in between(line, "`", "`").filter(|name| name.contains('/') && !name.contains(' ')) {
                let ours =
                    ["gochat-", "tests/", "docs/", "examples/"].iter().any(|folder| name.starts_with(folder)) && !name.starts_with("gochat-data");
                let path = name.trim_end_matches('/');
                assert!(!ours || root().join(path).exists(), "{document} names {name}, which is not there");
            }
        }
    }
}

#[test]
fn every_setting_is_documented_with_its_default() {
    let operations = read("docs/operations.md");
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        let row = format!("| `{}` | {default} |", setting.key).replace("|  |", "| |");
        assert!(operations.contains(&row), "docs/operations.md lacks the row {row}");
    }
    let example = between(&operations, "```toml\n", "```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gochat.toml");
    std::fs::write(&file, example).unwrap();
    let shown = gochat().arg("--config").arg(&file).arg("config").output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("push.provider = \"webhook\"") && shown.contains("push.webhook_secret = \"***\""), "{shown}");
}

#[test]
fn the_embedding_snippet_is_the_example() {
    let readme = read("README.md");
    let snippet = between(&readme, "```rust\n", "```").next().unwrap();
    assert!(read("examples/src/bin/embed.rs").contains(snippet), "README.md and examples/src/bin/embed.rs differ");
}

#[test]
fn the_embedding_example_runs() {
    let folder = tempfile::tempdir().unwrap();
    let program = binary().with_file_name("embed");
    let mut child = Command::new(program).arg(folder.path().join("chat")).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    assert!(line.starts_with("chat at http://127.0.0.1:") && status.success(), "{line} {status}");
}

/// `cargo run --release` at the root starts this binary without arguments: it listens where the README says, keeps its data where
/// the README says, and says so.
#[test]
fn the_start_command_starts_the_server() {
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("default-members = [\"gochat-server\"]") && read("gochat-server/Cargo.toml").contains("default-run = \"gochat\""));
    let shown = gochat().arg("config").current_dir(tempfile::tempdir().unwrap().path()).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("listen = \"127.0.0.1:8080\"") && shown.contains("data = \"./gochat-data\""), "{shown}");
    let readme = read("README.md");
    assert!(readme.contains("cargo run --release\n") && readme.contains("http://127.0.0.1:8080"));
}

#[test]
fn the_account_commands_of_the_operations_page_run() {
    let folder = tempfile::tempdir().unwrap();
    let server = Process::start(folder.path(), &[("GOCHAT_PASSWORDS_ITERATIONS", "1000")]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let body = serde_json::json!({"username": "ana", "password": "correct horse battery"});
    runtime.block_on(async {
        crate::client::http(server.address, http::Method::POST, "/api/v1/auth/register", None, &[], Some(&body)).await.expect(201);
    });
    let operations = read("docs/operations.md");
    let section = operations.split("## 3 Accounts").nth(1).unwrap();
    let commands = between(section, "```sh\n", "```").next().unwrap();
    for command in commands.lines() {
        let ran = without_settings(Command::new("sh"))
            .args(["-ec", &command.replace("gochat user", "\"$GOCHAT\" user")])
            .env("GOCHAT", binary())
            .env("GOCHAT_DATA", folder.path())
            .output()
            .unwrap();
        assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}
