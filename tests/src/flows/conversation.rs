//! Flow 5: conversations.

use std::collections::HashSet;

use serde_json::json;

use crate::client::{User, http, new_id};

flows! {
    async fn racing_creates_of_a_pair_make_one_conversation(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let creates = (0..16).map(|n| {
            let (from, to) = if n % 2 == 0 { (&ana, &bo) } else { (&bo, &ana) };
            from.single(to)
        });
        let ids: HashSet<String> = futures_util::future::join_all(creates).await.into_iter().collect();
        assert_eq!(ids.len(), 1);
    }

    async fn an_idempotency_key_makes_one_group(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let key = new_id();
        let create = |name: &'static str, key: String| {
            let body = json!({"name": name, "participants": [bo.id]});
            let ana = ana.clone();
            async move { http(ana.address, http::Method::POST, "/api/v1/groups", Some(&ana.token), &[("Idempotency-Key", &key)], Some(&body)).await }
        };
        let first = create("Once", key.clone()).await.expect(201);
        let again = create("Once", key.clone()).await.expect(200);
        assert_eq!(first["id"], again["id"]);
        assert_eq!(create("Other", key).await.code(), "IDEMPOTENCY_CONFLICT");
        assert_ne!(create("Once", new_id()).await.expect(201)["id"], first["id"]);
    }

    async fn every_participant_is_checked(server) {
        let ana = User::register(server.address(), "ana").await;
        let create = |participants: serde_json::Value, kind: &'static str| {
            let ana = ana.clone();
            async move { ana.post("/conversations", json!({"kind": kind, "name": "n", "participants": participants})).await }
        };
        assert_eq!(create(json!([new_id()]), "group").await.code(), "USER_NOT_FOUND");
        assert_eq!(create(json!([new_id()]), "single").await.status, 400, "a 1:1 has no name");
        assert_eq!(ana.post("/conversations", json!({"kind": "single", "participants": [ana.id]})).await.code(), "INVALID_FIELD");
        assert_eq!(ana.post("/conversations", json!({"kind": "single", "participants": []})).await.code(), "INVALID_FIELD");
        assert_eq!(ana.get("/conversations").await.expect(200)["items"], json!([]));
    }

    async fn the_list_is_by_activity_and_pages_through(server) {
        let ana = User::register(server.address(), "ana").await;
        let mut made = Vec::new();
        for n in 0..7 {
            let id = ana.group(&format!("group {n}"), &[]).await;
            server.advance(std::time::Duration::from_millis(5));
            ana.say(&id, &format!("in {n}")).await;
            made.push(id);
        }
        made.reverse();
        let (mut seen, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let path = cursor.as_ref().map_or("/conversations?limit=3".to_owned(), |cursor| format!("/conversations?limit=3&cursor={cursor}"));
            let page = ana.get(&path).await.expect(200);
            seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.into()),
                None => break,
            }
        }
        assert_eq!(seen, made);
        assert_eq!(ana.get("/conversations?cursor=nonsense").await.code(), "INVALID_CURSOR");
    }

    async fn leaving_a_pair_hides_it_until_the_next_message(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let chat = ana.single(&bo).await;
        bo.say(&chat, "hi").await;
        ana.post(&format!("/conversations/{chat}/leave"), json!({})).await.expect(204);
        assert_eq!(ana.get("/conversations").await.expect(200)["items"], json!([]));
        bo.say(&chat, "are you there?").await;
        let list = ana.get("/conversations").await.expect(200);
        assert_eq!((&list["items"][0]["id"], &list["items"][0]["unread"]), (&json!(chat), &json!(1)));
    }
}
