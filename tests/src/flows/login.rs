//! Flow 1: accounts and sessions.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::client::{Closed, PASSWORD, Socket, User, http};

flows! {
    async fn register_login_and_profile(server) {
        let ana = User::register(server.address(), "Ana").await;
        assert_eq!(ana.get("/users/me").await.expect(200)["username"], "ana");
        let profile = ana.patch("/users/me", json!({"display_name": "Ana B.", "avatar_url": "https://example.org/a.png"})).await.expect(200);
        assert_eq!(profile["display_name"], "Ana B.");
        let bo = User::register(server.address(), "bo").await;
        let found = bo.get("/users?q=ANA").await.expect(200);
        assert_eq!(found["items"][0]["id"], ana.id);
        assert_eq!(bo.get("/users?q=an").await.expect(200)["items"], json!([]), "a prefix search is a setting, off");
        let again = json!({"username": "ANA", "password": PASSWORD});
        let answer = http(server.address(), Method::POST, "/api/v1/auth/register", None, &[], Some(&again)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (409, "USERNAME_TAKEN"));
    }

    async fn wrong_and_unknown_get_the_same_answer_and_stand_in_the_log(server) {
        let ana = User::register(server.address(), "ana").await;
        let mut answers = Vec::new();
        for name in ["ana", "nobody"] {
            let body = json!({"username": name, "password": "not the password"});
            let mut answer = http(server.address(), Method::POST, "/api/v1/auth/login", None, &[], Some(&body)).await;
            answer.body["request_id"] = "".into();
            answers.push((answer.status, answer.body));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!((answers[0].0.as_u16(), &answers[0].1["code"]), (401, &json!("LOGIN_FAILED")));
        let log = ana.get("/auth/log").await.expect(200);
        let outcomes: Vec<&str> = log["items"].as_array().unwrap().iter().map(|item| item["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["wrong_password", "success"]);
    }

    async fn a_refresh_token_is_good_once_and_its_theft_ends_the_session(server) {
        let ana = User::register(server.address(), "ana").await;
        let refresh = async |token: String| {
            http(server.address(), Method::POST, "/api/v1/auth/refresh", None, &[], Some(&json!({"refresh_token": token}))).await
        };
        let second = refresh(ana.refresh.clone()).await.expect(200);
        let repeat = refresh(ana.refresh.clone()).await.expect(200);
        assert_eq!(repeat["refresh_token"], second["refresh_token"], "a lost answer can be asked for again");
        let third = refresh(second["refresh_token"].as_str().unwrap().into()).await.expect(200);
        let mut socket = Socket::open(server.address()).await;
        assert_eq!(socket.request(json!({"type": "auth", "token": third["access_token"]})).await["type"], "ready");
        server.advance(Duration::from_secs(11));
        assert_eq!(refresh(ana.refresh.clone()).await.code(), "REFRESH_REFUSED");
        assert_eq!(socket.closed().await, Closed(4002));
        assert_eq!(refresh(third["refresh_token"].as_str().unwrap().into()).await.code(), "REFRESH_REFUSED");
    }

    async fn a_device_that_is_signed_out_is_out_everywhere_within_two_seconds(server) {
        let phone = User::register(server.address(), "ana").await;
        let laptop = User::login(server.address(), "ana", PASSWORD).await;
        let mut at_laptop = laptop.connect().await;
        let devices = phone.get("/devices").await.expect(200);
        assert_eq!(devices["items"].as_array().unwrap().len(), 2);
        let began = Instant::now();
        phone.delete(&format!("/devices/{}", laptop.device)).await.expect(204);
        assert_eq!(at_laptop.closed().await, Closed(4002));
        while laptop.get("/users/me").await.status != 401 {
            assert!(began.elapsed() < Duration::from_secs(2), "HTTP still answers a session that was ended");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut socket = Socket::open(server.address()).await;
        socket.send(json!({"type": "auth", "token": laptop.token})).await;
        assert_eq!(socket.closed().await, Closed(4002));
        phone.get("/users/me").await.expect(200);
    }

    async fn changing_the_password_signs_the_other_devices_out(server) {
        let phone = User::register(server.address(), "ana").await;
        let laptop = User::login(server.address(), "ana", PASSWORD).await;
        let mut at_laptop = laptop.connect().await;
        let wrong = phone.post("/users/me/password", json!({"current": "nonsense!", "new": "a longer password"})).await;
        assert_eq!(wrong.code(), "LOGIN_FAILED");
        phone.post("/users/me/password", json!({"current": PASSWORD, "new": "a longer password"})).await.expect(204);
        assert_eq!(at_laptop.closed().await, Closed(4002));
        phone.get("/users/me").await.expect(200);
        User::login(server.address(), "ana", "a longer password").await;
    }

    async fn a_disabled_account_is_out_and_comes_back_when_enabled(server) {
        let ana = User::register(server.address(), "ana").await;
        let mut socket = ana.connect().await;
        server.admin(Method::POST, "/admin/users/ana/status", Some(json!({"status": "disabled"}))).await.expect(204);
        assert_eq!(socket.closed().await, Closed(4002));
        tokio::time::sleep(Duration::from_millis(2000)).await;
        assert_eq!(ana.get("/users/me").await.code(), "SESSION_REVOKED");
        let body = json!({"username": "ana", "password": PASSWORD});
        assert_eq!(http(server.address(), Method::POST, "/api/v1/auth/login", None, &[], Some(&body)).await.code(), "LOGIN_FAILED");
        server.admin(Method::POST, "/admin/users/ana/status", Some(json!({"status": "active"}))).await.expect(204);
        User::login(server.address(), "ana", PASSWORD).await;
    }

    async fn the_same_device_connecting_again_takes_the_place_of_the_old_connection(server) {
        let ana = User::register(server.address(), "ana").await;
        let mut first = ana.connect().await;
        let mut second = ana.connect().await;
        assert_eq!(first.closed().await, Closed(4012));
        assert_eq!(second.request(json!({"type": "ping"})).await["type"], "pong");
    }

    async fn no_answer_without_a_token(server) {
        let answer = http(server.address(), Method::GET, "/api/v1/users/me", None, &[], None).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (401, "UNAUTHENTICATED"));
        let answer = http(server.address(), Method::GET, "/api/v1/users/me", Some("ey.forged.token"), &[], None).await;
        assert_eq!(answer.code(), "UNAUTHENTICATED");
        let mut socket = Socket::open(server.address()).await;
        socket.send(json!({"type": "list"})).await;
        assert_eq!(socket.closed().await, Closed(4001));
    }
}
