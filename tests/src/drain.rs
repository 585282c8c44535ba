//! The ends of a server that are foreseen: a drain under load, and a full disk. Neither loses what was acked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Method;
use serde_json::json;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    checker::{self, Dump, Event, Name, read_log},
    client::{Closed, PASSWORD, Socket, User, http, new_id},
    process::Process,
    sandbox::provision,
};

const SENDERS: usize = 30;
/// Sends of one connection that are in flight when the drain begins.
const BURST: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_what_is_in_flight_and_asks_everybody_to_reconnect() {
    let folder = tempfile::tempdir().unwrap();
    let server = tokio::task::block_in_place(|| Process::start(folder.path(), &[("GOCHAT_LOG_LEVEL", "warn")]));
    let made = provision(server.admin, &server.admin_token(), json!({"users": SENDERS, "prefix": "d", "groups": [{"members": SENDERS}]})).await;
    let conversation = made["conversations"][0]["id"].as_str().unwrap().to_owned();
    let (history, under_way): (Arc<Mutex<Vec<Event>>>, Arc<Notify>) = Default::default();
    let mut clients = JoinSet::new();
    for user in made["users"].as_array().unwrap() {
        let text = |field: &str| user[field].as_str().unwrap().to_owned();
        let (sender, token, conversation, address) = (text("id"), text("access_token"), conversation.clone(), server.address);
        let (history, under_way) = (history.clone(), under_way.clone());
        clients.spawn(async move {
            let mut socket = Socket::open(address).await;
            assert_eq!(socket.request(json!({"type": "auth", "token": token})).await["type"], "ready");
            let mut open = BTreeMap::new();
            for number in 0..BURST {
                let name = Name { sender: sender.clone(), conversation: conversation.clone(), client_msg_id: new_id() };
                let body = format!("{number} of {sender}");
                history.lock().unwrap().push(Event::Sent { name: name.clone(), body: body.clone() });
                let send = json!({"type": "send", "conversation_id": conversation, "client_msg_id": name.client_msg_id, "text": body});
                open.insert(socket.send(send).await, (name, body));
            }
            loop {
                let frame = match socket.try_next().await {
                    Ok(frame) => frame,
                    Err(closed) => return (closed, open.len()),
                };
                let Some((name, body)) = frame["id"].as_u64().and_then(|id| open.remove(&id)) else { continue };
                if frame["type"] == "ack" {
                    history.lock().unwrap().push(Event::Acked { name, body, seq: frame["seq"].as_i64().unwrap() });
                } else {
                    assert_eq!(frame["code"], "DRAINING", "{frame}");
                    history.lock().unwrap().push(Event::Refused { name });
                }
                under_way.notify_one();
            }
        });
    }
    under_way.notified().await;
    let (code, took) = tokio::task::block_in_place(|| server.terminate());
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(10), "the drain took {took:?}");
    while let Some(client) = clients.join_next().await {
        let (closed, unanswered) = client.unwrap();
        assert_eq!((closed, unanswered), (Closed(4000), 0), "every send is answered, then comes the code that says: reconnect");
    }

    let server = tokio::task::block_in_place(|| Process::start(folder.path(), &[("GOCHAT_LOG_LEVEL", "warn")]));
    let token = made["users"][0]["access_token"].as_str().unwrap();
    let log = read_log(server.address, token, &conversation).await;
    let history = std::mem::take(&mut *history.lock().unwrap());
    let dump = Dump { logs: [(conversation, log)].into(), away: Vec::new() };
    let report = checker::check(&history, &dump).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!((report.sent, report.unknown), (SENDERS * BURST, 0), "{report:?}");
    assert!(report.acked > 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_loses_nothing_that_was_acked() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("GOCHAT_PASSWORDS_ITERATIONS", "1000"), ("GOCHAT_LOG_LEVEL", "error")];
    let full = [&settings[..], &[("GOCHAT_STORE_PAGES_MAX", "300")]].concat();
    let server = tokio::task::block_in_place(|| Process::start(folder.path(), &full));
    let (ana, bo) = (User::register(server.address, "ana").await, User::register(server.address, "bo").await);
    let chat = ana.single(&bo).await;
    let mut history = Vec::new();
    let mut socket = ana.connect().await;
    let mut refused = 0;
    for number in 0.. {
        assert!(number < 2000, "the store does not become full");
        let name = Name { sender: ana.id.clone(), conversation: chat.clone(), client_msg_id: new_id() };
        let body = format!("{number} {}", "x".repeat(8000));
        history.push(Event::Sent { name: name.clone(), body: body.clone() });
        let send = json!({"type": "send", "conversation_id": chat, "client_msg_id": name.client_msg_id, "text": body});
        let answer = socket.request(send).await;
        if answer["type"] == "ack" {
            history.push(Event::Acked { name, body, seq: answer["seq"].as_i64().unwrap() });
        } else {
            assert_eq!(answer["code"], "STORAGE_FULL", "{answer}");
            history.push(Event::Refused { name });
            refused += 1;
            if refused == 20 {
                break;
            }
        }
    }
    // Over HTTP the same; what only reads goes on.
    let send = ana.post(&format!("/conversations/{chat}/messages"), json!({"client_msg_id": new_id(), "text": "y".repeat(8000)})).await;
    assert_eq!((send.status.as_u16(), send.code()), (503, "STORAGE_FULL"));
    for number in 0..3 {
        let account = json!({"username": format!("late{number}"), "password": PASSWORD});
        let registered = http(server.address, Method::POST, "/api/v1/auth/register", None, &[], Some(&account)).await;
        assert!(registered.status == 201 || registered.code() == "STORAGE_FULL", "{registered:?}");
    }
    let log = read_log(server.address, &bo.token, &chat).await;
    checker::check(&history, &Dump { logs: [(chat.clone(), log)].into(), away: Vec::new() }).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(tokio::task::block_in_place(|| server.terminate()).0, Some(0));

    let server = tokio::task::block_in_place(|| Process::start(folder.path(), &settings));
    let ana = User { address: server.address, ..ana };
    let mut socket = ana.connect().await;
    for number in 0..20 {
        let name = Name { sender: ana.id.clone(), conversation: chat.clone(), client_msg_id: new_id() };
        let body = format!("with room again {number}");
        history.push(Event::Sent { name: name.clone(), body: body.clone() });
        let send = json!({"type": "send", "conversation_id": chat, "client_msg_id": name.client_msg_id, "text": body});
        let ack = socket.request(send).await;
        assert_eq!(ack["type"], "ack", "{ack}");
        history.push(Event::Acked { name, body, seq: ack["seq"].as_i64().unwrap() });
    }
    let log = read_log(server.address, &ana.token, &chat).await;
    let dump = Dump { logs: [(chat, log)].into(), away: Vec::new() };
    let report = checker::check(&history, &dump).unwrap_or_else(|violation| panic!("{violation}"));
    assert!(report.acked > 30 && report.refused == 20 && report.unknown == 0, "{report:?}");
}
