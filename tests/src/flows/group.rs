//! Flows 3 and 6: groups, small and large, and everything that is done to them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{User, new_id};

async fn users(server: &crate::sandbox::Sandbox, names: &[&str]) -> Vec<User> {
    let mut users = Vec::new();
    for name in names {
        users.push(User::register(server.address(), name).await);
    }
    users
}

flows! {
    async fn a_group_of_three_talks(server) {
        let users = users(&server, &["ana", "bo", "cy"]).await;
        let group = users[0].group("Three", &[&users[1], &users[2]]).await;
        let (mut ana, mut bo, mut cy) = (users[0].connect().await, users[1].connect().await, users[2].connect().await);
        ana.say(&group, "hello all").await;
        assert_eq!(bo.next_of("message").await["text"], "hello all");
        assert_eq!(cy.next_of("message").await["text"], "hello all");
        let created = &users[1].read_all(&group).await[0];
        assert_eq!((&created["kind"], &created["data"]["type"]), (&json!("event"), &json!("created")));
    }

    /// 99 members go directly, 100 and more through the task role; nobody can tell the difference.
    async fn groups_of_99_100_101_and_1000_reach_every_member(server) {
        for size in [99usize, 100, 101, 1000] {
            let crowd = server.crowd(&format!("g{size}"), size).await;
            let (mut first, mut last) = (crowd.connect(1).await, crowd.connect(size - 1).await);
            let mut sender = crowd.connect(0).await;
            for n in 0..5 {
                sender.say(&crowd.conversation, &n.to_string()).await;
            }
            for socket in [&mut first, &mut last] {
                for n in 0..5 {
                    assert_eq!(socket.next_of("message").await["text"], n.to_string(), "group of {size}");
                }
            }
            let marks = sender.drain(Duration::from_millis(100)).await;
            assert!(marks.iter().all(|frame| frame["type"] != "message"), "the sending device gets acks only: {marks:?}");
        }
    }

    async fn who_is_removed_sees_the_removal_and_nothing_after_it(server) {
        let users = users(&server, &["ana", "bo", "cy"]).await;
        let group = users[0].group("Three", &[&users[1], &users[2]]).await;
        let (mut ana, mut cy) = (users[0].connect().await, users[2].connect().await);
        ana.say(&group, "before").await;
        assert_eq!(cy.next_of("message").await["text"], "before");
        users[0].delete(&format!("/groups/{group}/members/{}", users[2].id)).await.expect(204);
        assert_eq!(cy.next_of("message").await["data"]["type"], "member_removed");
        ana.say(&group, "after").await;
        let later = cy.drain(Duration::from_millis(400)).await;
        assert!(later.iter().all(|frame| frame["type"] != "message"), "{later:?}");
        let send = json!({"type": "send", "conversation_id": group, "client_msg_id": new_id(), "text": "let me in"});
        assert_eq!(cy.request(send).await["code"], "NOT_A_MEMBER");
        let seen = users[2].read_all(&group).await;
        assert_eq!(seen.last().unwrap()["data"]["type"], "member_removed");
        users[0].post(&format!("/groups/{group}/members"), json!({"user_ids": [users[2].id]})).await.expect(200);
        let seqs: Vec<i64> = users[2].read_all(&group).await.iter().map(|message| message["seq"].as_i64().unwrap()).collect();
        assert_eq!(seqs, [1, 2, 3, 5], "what was said meanwhile stays hidden");
    }

    async fn roles_decide_who_may_do_what(server) {
        let users = users(&server, &["ana", "bo", "cy", "di"]).await;
        let (ana, bo, cy, di) = (&users[0], &users[1], &users[2], &users[3]);
        let group = ana.group("Roles", &[bo, cy]).await;
        let member = |user: &User| format!("/groups/{group}/members/{}", user.id);
        assert_eq!(bo.post(&format!("/groups/{group}/members"), json!({"user_ids": [di.id]})).await.code(), "DENIED");
        assert_eq!(bo.patch(&member(cy), json!({"role": "admin"})).await.code(), "DENIED");
        ana.patch(&member(bo), json!({"role": "admin"})).await.expect(204);
        bo.post(&format!("/groups/{group}/members"), json!({"user_ids": [di.id]})).await.expect(200);
        assert_eq!(bo.delete(&member(ana)).await.code(), "DENIED");
        bo.patch(&format!("/groups/{group}"), json!({"name": "Renamed", "description": "About"})).await.expect(200);
        assert_eq!(di.get(&format!("/conversations/{group}")).await.expect(200)["name"], "Renamed");
        assert_eq!(ana.post(&format!("/conversations/{group}/leave"), json!({})).await.code(), "OWNER_LEAVES");
        ana.put(&format!("/groups/{group}/owner"), json!({"user_id": bo.id})).await.expect(200);
        ana.post(&format!("/conversations/{group}/leave"), json!({})).await.expect(204);
        assert_eq!(cy.delete(&format!("/groups/{group}")).await.code(), "DENIED");
        bo.delete(&format!("/groups/{group}")).await.expect(204);
        let send = json!({"client_msg_id": new_id(), "text": "too late"});
        assert_eq!(bo.post(&format!("/conversations/{group}/messages"), send).await.code(), "DISSOLVED");
        let events: Vec<Value> = cy.read_all(&group).await.into_iter().map(|message| message["data"]["type"].clone()).collect();
        assert_eq!(events, ["created", "role_changed", "members_joined", "edited", "owner_changed", "member_left", "dissolved"]);
    }

    async fn a_silenced_member_cannot_send_until_the_silence_ends(server) {
        let users = users(&server, &["ana", "bo"]).await;
        let group = users[0].group("Quiet", &[&users[1]]).await;
        let until = server.now() + 60_000;
        users[0].patch(&format!("/groups/{group}/members/{}", users[1].id), json!({"silenced_until": until})).await.expect(204);
        let send = || json!({"client_msg_id": new_id(), "text": "mmh"});
        assert_eq!(users[1].post(&format!("/conversations/{group}/messages"), send()).await.code(), "SILENCED");
        server.advance(Duration::from_secs(61));
        users[1].post(&format!("/conversations/{group}/messages"), send()).await.expect(201);
    }

    async fn links_requests_and_open_groups(server) {
        let users = users(&server, &["ana", "bo", "cy", "di"]).await;
        let (ana, bo, cy, di) = (&users[0], &users[1], &users[2], &users[3]);
        let group = ana.group("Door", &[]).await;
        assert_eq!(bo.post(&format!("/groups/{group}/join"), json!({})).await.code(), "CONVERSATION_NOT_FOUND");
        let secret = ana.post(&format!("/groups/{group}/link"), json!({})).await.expect(201)["secret"].clone();
        bo.post("/groups/join", json!({"secret": secret})).await.expect(200);
        ana.delete(&format!("/groups/{group}/link")).await.expect(204);
        assert_eq!(cy.post("/groups/join", json!({"secret": secret})).await.code(), "LINK_NOT_FOUND");
        ana.patch(&format!("/groups/{group}"), json!({"join_mode": "request"})).await.expect(200);
        cy.post(&format!("/groups/{group}/requests"), json!({})).await.expect(202);
        assert_eq!(bo.get(&format!("/groups/{group}/requests")).await.code(), "DENIED");
        let open = ana.get(&format!("/groups/{group}/requests")).await.expect(200);
        assert_eq!(open["items"][0]["user_id"], cy.id);
        ana.put(&format!("/groups/{group}/requests/{}", cy.id), json!({"accept": true})).await.expect(204);
        cy.say(&group, "thanks").await;
        ana.patch(&format!("/groups/{group}"), json!({"join_mode": "open"})).await.expect(200);
        di.post(&format!("/groups/{group}/join"), json!({})).await.expect(200);
        assert_eq!(ana.get(&format!("/conversations/{group}")).await.expect(200)["member_count"], 4);
    }

    async fn the_maximum_of_members_holds_under_a_race(server) {
        let users = users(&server, &["ana", "u1", "u2", "u3", "u4", "u5", "u6"]).await;
        let group = users[0].post("/groups", json!({"name": "Small", "participants": [], "max_members": 4, "join_mode": "open"})).await.expect(201);
        let path = format!("/groups/{}/join", group["id"].as_str().unwrap());
        let joins = users[1..].iter().map(|user| user.post(&path, json!({})));
        let answers = futures_util::future::join_all(joins).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 3);
        assert!(answers.iter().filter(|answer| answer.status != 200).all(|answer| answer.code() == "GROUP_FULL"));
    }
}
