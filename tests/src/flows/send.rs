//! Flow 2: 1:1 messages.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{User, http, new_id};

flows! {
    /// The first test to exist: two users exchange one message, end to end.
    async fn two_users_exchange_one_message(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let chat = ana.single(&bo).await;
        let (mut at_ana, mut at_bo) = (ana.connect().await, bo.connect().await);
        let ack = at_ana.say(&chat, "hello").await;
        let message = at_bo.next_of("message").await;
        assert_eq!(message["text"], "hello");
        assert_eq!(message["sender_id"], ana.id);
        assert_eq!(message["seq"], ack["seq"]);
        assert_eq!(message["message_id"], ack["message_id"]);
        let stored = bo.read_all(&chat).await;
        assert_eq!(stored.last().unwrap()["text"], "hello");
        at_bo.say(&chat, "hello yourself").await;
        assert_eq!(at_ana.next_of("message").await["text"], "hello yourself");
    }

    async fn the_senders_other_devices_get_the_message_and_the_sending_one_does_not(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let laptop = User::login(server.address(), "ana", &ana.password).await;
        let chat = ana.single(&bo).await;
        let (mut at_phone, mut at_laptop) = (ana.connect().await, laptop.connect().await);
        at_phone.say(&chat, "from the phone").await;
        assert_eq!(at_laptop.next_of("message").await["text"], "from the phone");
        let others = at_phone.drain(Duration::from_millis(300)).await;
        assert!(others.iter().all(|frame| frame["type"] != "message"), "{others:?}");
    }

    async fn the_same_id_is_the_same_message_and_another_payload_a_conflict(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let chat = ana.single(&bo).await;
        let mut socket = ana.connect().await;
        let send = json!({"type": "send", "conversation_id": chat, "client_msg_id": new_id(), "text": "once"});
        let first = socket.request(send.clone()).await;
        let mut repeats = Vec::new();
        for _ in 0..20 {
            repeats.push(socket.send(send.clone()).await);
        }
        for id in repeats {
            let repeat = socket.answer(id).await;
            assert_eq!((&repeat["seq"], &repeat["message_id"]), (&first["seq"], &first["message_id"]), "{repeat}");
        }
        let mut other = send;
        other["text"] = "twice".into();
        assert_eq!(socket.request(other).await["code"], "IDEMPOTENCY_CONFLICT");
        let texts: Vec<Value> = ana.read_all(&chat).await.into_iter().filter(|message| message["kind"] == "text").collect();
        assert_eq!(texts.len(), 1);
    }

    async fn messages_of_one_device_keep_their_order_and_seqs_are_dense(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let chat = ana.single(&bo).await;
        let (mut at_ana, mut at_bo) = (ana.connect().await, bo.connect().await);
        let mut ids = Vec::new();
        for n in 0..300 {
            ids.push(at_ana.send(json!({"type": "send", "conversation_id": chat, "client_msg_id": new_id(), "text": format!("{n}")})).await);
        }
        for id in ids {
            assert_eq!(at_ana.answer(id).await["type"], "ack");
        }
        let live: Vec<Value> = {
            let mut live = Vec::new();
            while live.len() < 300 {
                live.push(at_bo.next_of("message").await);
            }
            live
        };
        let stored: Vec<Value> = bo.read_all(&chat).await;
        assert_eq!(stored.iter().map(|message| message["seq"].as_i64().unwrap()).collect::<Vec<_>>(), (1..=301).collect::<Vec<_>>());
        for (n, (live, stored)) in live.iter().zip(&stored[1..]).enumerate() {
            assert_eq!(live["text"], n.to_string());
            assert_eq!(live["message_id"], stored["message_id"]);
        }
    }

    async fn http_takes_the_same_path_as_the_socket(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let chat = ana.single(&bo).await;
        let mut at_bo = bo.connect().await;
        let body = json!({"client_msg_id": new_id(), "kind": "location", "data": {"latitude": 48.2, "longitude": 16.4, "name": "Wien"}, "reply_to": 1});
        let ack = ana.post(&format!("/conversations/{chat}/messages"), body.clone()).await.expect(201);
        let message = at_bo.next_of("message").await;
        assert_eq!(message["data"]["name"], "Wien");
        assert_eq!(message["reply_to"], 1);
        assert_eq!(ana.post(&format!("/conversations/{chat}/messages"), body).await.expect(201)["message_id"], ack["message_id"]);
    }

    async fn strangers_are_told_that_there_is_no_such_conversation(server) {
        let (ana, bo, eve) =
            (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await, User::register(server.address(), "eve").await);
        let chat = ana.single(&bo).await;
        let mut at_eve = eve.connect().await;
        let send = json!({"type": "send", "conversation_id": chat, "client_msg_id": new_id(), "text": "psst"});
        assert_eq!(at_eve.request(send).await["code"], "CONVERSATION_NOT_FOUND");
        for path in [format!("/conversations/{chat}"), format!("/conversations/{chat}/messages"), format!("/conversations/{chat}/members")] {
            let answer = eve.get(&path).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (404, "CONVERSATION_NOT_FOUND"), "{path}");
        }
        assert_eq!(ana.read_all(&chat).await.len(), 1);
    }

    async fn bad_sends_are_refused_with_their_codes_and_the_socket_stays(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let chat = ana.single(&bo).await;
        let mut socket = ana.connect().await;
        let base = json!({"type": "send", "conversation_id": chat, "client_msg_id": new_id()});
        let with = |change: Value| {
            let mut request = base.clone();
            request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            request
        };
        for (request, code) in [
            (with(json!({"text": ""})), "INVALID_FIELD"),
            (with(json!({"text": "x".repeat(16 * 1024 + 1)})), "TOO_LARGE"),
            (with(json!({"text": "a", "kind": "image"})), "INVALID_FIELD"),
            (with(json!({"kind": "image", "data": {"url": "javascript:alert(1)"}})), "INVALID_FIELD"),
            (with(json!({"kind": "event", "data": {"type": "dissolved"}})), "INVALID_FIELD"),
            (with(json!({"text": "a", "reply_to": 999})), "MESSAGE_NOT_FOUND"),
            (with(json!({"text": "a", "conversation_id": new_id()})), "CONVERSATION_NOT_FOUND"),
        ] {
            let answer = socket.request(request).await;
            assert_eq!(answer["code"], code, "{answer}");
            assert!(!answer["hint"].as_str().unwrap().is_empty());
        }
        socket.say(&chat, "still here").await;
    }

    async fn marks_reach_the_other_and_unread_follows_them(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let chat = ana.single(&bo).await;
        let mut at_ana = ana.connect().await;
        let mut at_bo = bo.connect().await;
        for n in 0..3 {
            at_ana.say(&chat, &n.to_string()).await;
        }
        assert_eq!(bo.get(&format!("/conversations/{chat}")).await.expect(200)["unread"], 3);
        assert_eq!(ana.get(&format!("/conversations/{chat}")).await.expect(200)["unread"], 0);
        at_bo.request(json!({"type": "mark", "conversation_id": chat, "read_seq": 3})).await;
        let marks = at_ana.next_of("marks").await;
        assert_eq!((&marks["user_id"], &marks["read_seq"], &marks["delivered_seq"]), (&json!(bo.id), &json!(3), &json!(3)));
        let view = bo.get(&format!("/conversations/{chat}")).await.expect(200);
        assert_eq!((&view["unread"], &view["read_seq"]), (&json!(1), &json!(3)));
        let member = bo.post(&format!("/conversations/{chat}/marks"), json!({"read_seq": 1})).await.expect(200);
        assert_eq!(member["read_seq"], 3, "marks only rise");
        let member = bo.post(&format!("/conversations/{chat}/marks"), json!({"read_seq": 9_000})).await.expect(200);
        assert_eq!(member["read_seq"], 4, "never above the head");
        assert_eq!(ana.get(&format!("/conversations/{chat}")).await.expect(200)["peer_read_seq"], 4);
    }

    async fn a_device_that_was_away_syncs_what_it_lacks(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let chat = ana.single(&bo).await;
        for n in 0..7 {
            ana.say(&chat, &n.to_string()).await;
        }
        let mut at_bo = bo.connect().await;
        let unknown = new_id();
        let mut have = serde_json::Map::new();
        have.insert(chat.clone(), json!(3));
        have.insert(unknown.clone(), json!(0));
        let synced = at_bo.request(json!({"type": "sync", "have": have, "limit": 4})).await;
        let by_id = |id: &str| synced["conversations"].as_array().unwrap().iter().find(|item| item["id"] == id).cloned().unwrap();
        let seqs: Vec<i64> = by_id(&chat)["messages"].as_array().unwrap().iter().map(|message| message["seq"].as_i64().unwrap()).collect();
        assert_eq!(seqs, [4, 5, 6, 7]);
        assert_eq!((&by_id(&chat)["more"], &by_id(&chat)["head_seq"]), (&json!(true), &json!(8)));
        assert_eq!(by_id(&unknown)["head_seq"], 0);
        let list = at_bo.request(json!({"type": "list"})).await;
        assert_eq!(list["items"][0]["id"], chat);
        assert_eq!(list["items"][0]["last_message"]["text"], "6");
        let page = at_bo.request(json!({"type": "history", "conversation_id": chat, "before": 5, "limit": 2})).await;
        let seqs: Vec<i64> = page["messages"].as_array().unwrap().iter().map(|message| message["seq"].as_i64().unwrap()).collect();
        assert_eq!((seqs.as_slice(), &page["more"]), ([3, 4].as_slice(), &json!(true)));
    }

    async fn the_open_api_document_is_served(server) {
        let document = http(server.address(), http::Method::GET, "/api/v1/openapi.json", None, &[], None).await.expect(200);
        assert_eq!(document["openapi"].as_str().unwrap().split('.').next(), Some("3"));
    }
}
