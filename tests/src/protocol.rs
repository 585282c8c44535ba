//! docs/protocol.md is enough to write a client from: its exchange is played against a real server, its codes are ours.

use std::collections::BTreeMap;

use gochat_core::error::Code;
use http::Method;
use serde_json::Value;

use crate::{
    client::{Socket, http},
    sandbox::Sandbox,
};

const PROTOCOL: &str = include_str!("../../docs/protocol.md");

#[derive(Default)]
struct Actor {
    token: Option<String>,
    socket: Option<Socket>,
    answer: Option<(u16, Value)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_exchange_happens_as_written() {
    let server = Sandbox::start().await;
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut actors: BTreeMap<&str, Actor> = BTreeMap::new();
    let exchange = PROTOCOL.split("```exchange\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the exchange");
    for line in exchange.lines() {
        let (name, rest) = line.split_once(' ').expect(line);
        let (direction, what) = rest.split_once(' ').expect(line);
        let actor = actors.entry(name).or_default();
        if direction == ">" {
            // Backwards, so that no name is taken for the beginning of a longer one.
            let what = known.iter().rev().fold(what.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value));
            assert!(!what.contains('$'), "unknown value in {what}");
            if what.starts_with('{') {
                if actor.socket.is_none() {
                    actor.socket = Some(Socket::open(server.address()).await);
                }
                actor.socket.as_mut().unwrap().send_text(&what).await;
            } else {
                let mut parts = what.splitn(3, ' ');
                let (method, path) = (parts.next().unwrap().parse::<Method>().unwrap(), parts.next().unwrap());
                let body: Option<Value> = parts.next().map(|body| serde_json::from_str(body).expect(line));
                let answer = http(server.address(), method, path, actor.token.as_deref(), &[], body.as_ref()).await;
                actor.answer = Some((answer.status.as_u16(), answer.body));
            }
        } else if what.starts_with('{') {
            let expected: Value = serde_json::from_str(what).expect(line);
            let socket = actor.socket.as_mut().expect(line);
            let frame = loop {
                // Frames that answer nothing may come at any time: those that the document does not name are passed over.
                let frame = socket.next().await;
                if frame["type"] == expected["type"] || frame["type"] == "error" {
                    break frame;
                }
            };
            matches(&expected, &frame, &mut known).unwrap_or_else(|why| panic!("{line}\ngot {frame}\n{why}"));
        } else {
            let (status, body) = what.split_once(' ').expect(line);
            let (got_status, got) = actor.answer.take().expect(line);
            assert_eq!(got_status.to_string(), status, "{line}\ngot {got}");
            matches(&serde_json::from_str(body).expect(line), &got, &mut known).unwrap_or_else(|why| panic!("{line}\ngot {got}\n{why}"));
            if let Some(token) = got["access_token"].as_str() {
                actor.token = Some(token.into());
            }
        }
    }
}

/// Everything that is expected is there; a `$name` takes its value on first sight.
fn matches(expected: &Value, got: &Value, known: &mut BTreeMap<String, String>) -> Result<(), String> {
    match (expected, got) {
        (Value::String(name), got) if name.starts_with('$') => {
            let text = got.as_str().map_or_else(|| got.to_string(), str::to_owned);
            let value = known.entry(name[1..].to_owned()).or_insert_with(|| text.clone());
            if *value == text { Ok(()) } else { Err(format!("{name} is {value}, not {text}")) }
        }
        (Value::Object(expected), Value::Object(got)) => expected
            .iter()
            .try_for_each(|(key, value)| matches(value, got.get(key).unwrap_or(&Value::Null), known).map_err(|why| format!("{key}: {why}"))),
        (Value::Array(expected), Value::Array(got)) if expected.len() == got.len() => {
            expected.iter().zip(got).try_for_each(|(expected, got)| matches(expected, got, known))
        }
        _ if expected == got => Ok(()),
        _ => Err(format!("expected {expected}, got {got}")),
    }
}

#[test]
fn every_code_that_the_document_names_exists() {
    let named = PROTOCOL.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).filter(|word| word.contains('_') && word.len() > 6);
    for word in named.filter(|word| !word.starts_with('_') && !word.ends_with('_')) {
        assert!(Code::parse(word).is_some() || word == "CODE", "docs/protocol.md names {word}, which is no code");
    }
}

#[test]
fn every_code_is_in_the_document_with_its_status_cause_and_hint() {
    for code in Code::ALL {
        let row = format!("| `{}` | {} | {} | {} |", code.as_str(), code.kind().status(), code.cause(), code.hint());
        assert!(PROTOCOL.contains(&row), "docs/protocol.md lacks the row {row}");
    }
}
