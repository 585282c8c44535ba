//! Values at their limits, and values that differ by nearly nothing.

use gochat_core::{
    ids::{DeviceId, FamilyId, UserId},
    limits::{DESCRIPTION_CHARS_MAX, DEVICE_NAME_CHARS_MAX, EXTERNAL_ID_BYTES_MAX, NAME_CHARS_MAX, URL_BYTES_MAX, USERNAME_BYTES_MAX},
    model::{Credential, LoginAttempt, LoginOutcome, NewConversation, NewSession, NewUser, ProfileChange},
    ports::{Conversations, Devices, Messages, Users},
    time::Timestamp,
};
use uuid::Uuid;

use crate::support::{code, draft, new_group, now, on_a_database, send, users};

fn new_user(username: &str, external_id: Option<&str>) -> NewUser {
    NewUser {
        id: UserId::from(Uuid::now_v7()),
        username: username.into(),
        display_name: "Somebody".into(),
        password_phc: None,
        external_id: external_id.map(Into::into),
        created_at: now(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_values_are_stored_whole() {
    on_a_database(async |database| {
        let store = database.store().await;
        let wide = |chars: usize| "🦀".repeat(chars);
        let new = NewUser {
            display_name: wide(NAME_CHARS_MAX),
            password_phc: Some("p".repeat(500)),
            ..new_user(&"n".repeat(USERNAME_BYTES_MAX), Some(&"e".repeat(EXTERNAL_ID_BYTES_MAX)))
        };
        let user = store.create_user(&new).await.unwrap();
        let picture = ProfileChange { avatar_url: Some(Some(format!("/{}", "u".repeat(URL_BYTES_MAX - 1)))), ..ProfileChange::default() };
        let user = store.update_profile(user.id, &picture).await.unwrap();
        assert_eq!(store.user_by_name(&new.username).await.unwrap().as_ref(), Some(&user));
        assert_eq!((&user.display_name, &user.external_id), (&new.display_name, &new.external_id));
        assert_eq!(user.avatar_url, picture.avatar_url.unwrap());
        let credential = Credential { user: user.id, phc: "q".repeat(500) };
        store.set_credential(&credential, None).await.unwrap();
        assert_eq!(store.credential(user.id).await.unwrap().unwrap().phc, credential.phc);

        let session = NewSession {
            user: user.id,
            device: DeviceId::from(Uuid::now_v7()),
            device_name: wide(DEVICE_NAME_CHARS_MAX),
            family: FamilyId::from(Uuid::now_v7()),
            refresh_hash: [7; 32],
            refresh_expires_at: Timestamp(i64::MAX),
            address: "a".repeat(64),
            at: now(),
        };
        assert_eq!(store.record_login(&session).await.unwrap().0.name, session.device_name);
        let failed = LoginAttempt {
            user: Some(user.id),
            username: new.username,
            device: None,
            outcome: LoginOutcome::WrongPassword,
            address: "b".repeat(64),
            at: now(),
        };
        store.record_failed_logins(&[failed.clone(), failed.clone()]).await.unwrap();
        let log = store.login_log(user.id, 10).await.unwrap();
        assert_eq!((log.len(), &log[0].address, log[0].outcome), (3, &failed.address, LoginOutcome::WrongPassword));

        let group = NewConversation {
            name: wide(NAME_CHARS_MAX),
            description: wide(DESCRIPTION_CHARS_MAX),
            avatar_url: Some("u".repeat(URL_BYTES_MAX)),
            ..new_group(user.id, &[])
        };
        let made = store.create_conversation(&group).await.unwrap().conversation;
        let found = store.conversations(&[made.id]).await.unwrap().remove(0).unwrap();
        assert_eq!((found.name, found.description, found.avatar_url), (group.name, group.description, group.avatar_url));
        for body in ["🦀".repeat(16 << 10), String::new(), "\0'\"\\\n".into()] {
            let stored = send(&store, vec![draft(made.id, user.id, &body)]).await.remove(0).unwrap().message;
            assert_eq!(stored.body.content, body);
            assert_eq!(store.history(user.id, made.id, None, None, 1).await.unwrap(), [stored]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_differ_differ() {
    on_a_database(async |database| {
        let store = database.store().await;
        let names = ["ada", "ada-", "Ada", "adá", "ada\u{301}"];
        let externals = ["x", "x ", "X", "x\t", "x\0", ""];
        for name in names {
            store.create_user(&new_user(name, None)).await.unwrap();
        }
        for (n, external) in externals.iter().enumerate() {
            store.create_user(&new_user(&format!("e{n}"), Some(external))).await.unwrap();
        }
        for name in names {
            assert_eq!(store.user_by_name(name).await.unwrap().unwrap().username, name);
            assert_eq!(code(store.create_user(&new_user(name, None)).await), "USERNAME_TAKEN");
        }
        for (n, external) in externals.iter().enumerate() {
            assert_eq!(store.user_by_external_id(external).await.unwrap().unwrap().username, format!("e{n}"));
        }
        assert_eq!(store.user_by_external_id("x  ").await.unwrap(), None);
        let found: Vec<String> = store.users_by_prefix("ada", None, 10).await.unwrap().into_iter().map(|user| user.username).collect();
        assert_eq!(found, ["ada", "ada-", "ada\u{301}"]);
    })
    .await;
}

/// A value that does not fit is refused, never cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused() {
    on_a_database(async |database| {
        let store = database.store().await;
        let [a] = users(&store).await;
        assert_eq!(code(store.create_user(&new_user(&"n".repeat(65), None)).await), "INTERNAL");
        assert_eq!(store.users_by_prefix("n", None, 10).await.unwrap(), []);
        assert_eq!(store.users(&[a]).await.unwrap().len(), 1);
    })
    .await;
}
