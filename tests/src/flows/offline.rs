//! Flow 4: who is not connected gets a push, once, and only while it is still wanted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::User;

async fn log(user: &User, want: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let items = user.get("/push/log").await.expect(200)["items"].as_array().unwrap().clone();
        let done = items.iter().filter(|item| !item["outcome"].is_null()).count();
        if done >= want || began.elapsed() > Duration::from_secs(10) {
            return items;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

flows! {
    async fn each_device_of_an_absent_member_gets_one_push_and_the_message_later(server) {
        let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
        let tablet = User::login(server.address(), "bo", &bo.password).await;
        let chat = ana.single(&bo).await;
        let mut at_ana = ana.connect().await;
        at_ana.say(&chat, "wake up").await;
        let pushes = log(&bo, 2).await;
        let mut devices: Vec<&str> = pushes.iter().map(|push| push["device_id"].as_str().unwrap()).collect();
        devices.sort_unstable();
        let mut expected = [bo.device.as_str(), tablet.device.as_str()];
        expected.sort_unstable();
        assert_eq!(devices, expected);
        assert!(pushes.iter().all(|push| push["outcome"] == "sent"), "{pushes:?}");
        assert_eq!(bo.read_all(&chat).await.last().unwrap()["text"], "wake up");
        assert_eq!(log(&ana, 0).await.len(), 0, "who is connected gets none, the sender neither");
    }

    async fn who_is_connected_or_has_muted_gets_no_push(server) {
        let users = [User::register(server.address(), "ana").await, User::register(server.address(), "bo").await, User::register(server.address(), "cy").await];
        let group = users[0].group("Three", &[&users[1], &users[2]]).await;
        users[2].put(&format!("/conversations/{group}/mute"), json!({"muted": true})).await.expect(204);
        let mut at_bo = users[1].connect().await;
        users[0].say(&group, "anybody?").await;
        assert_eq!(at_bo.next_of("message").await["text"], "anybody?");
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(log(&users[1], 0).await, Vec::<Value>::new());
        assert_eq!(log(&users[2], 0).await, Vec::<Value>::new());
    }
}
