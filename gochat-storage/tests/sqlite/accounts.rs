use std::time::Duration;

use gochat_core::{
    ids::{DeviceId, UserId},
    limits::DEVICES_MAX,
    model::{Caller, Credential, LoginAttempt, LoginOutcome, NewUser, ProfileChange, Refreshed, Rotation, UserStatus},
    ports::{Devices, Users},
    time::Timestamp,
};
use uuid::Uuid;

use crate::support::{TestStore, code, new_session, now, secret, store};

fn new_user(username: &str, external_id: Option<&str>) -> NewUser {
    NewUser {
        id: UserId::from(Uuid::now_v7()),
        username: username.into(),
        display_name: username.to_uppercase(),
        password_phc: Some(format!("phc of {username}")),
        external_id: external_id.map(str::to_owned),
        created_at: now(),
    }
}

#[tokio::test]
async fn names_and_external_ids_belong_to_one_account() {
    let store = store();
    let ann = new_user("ann", Some("host-1"));
    let made = store.create_user(&ann).await.unwrap();
    assert_eq!((made.version, made.status), (1, UserStatus::Active));
    assert_eq!(store.create_user(&ann).await.unwrap(), made, "the very same call, repeated");
    assert_eq!(code(store.create_user(&new_user("ann", None)).await), "USERNAME_TAKEN");
    assert_eq!(code(store.create_user(&new_user("bob", Some("host-1"))).await), "IDEMPOTENCY_CONFLICT");
    let missing = UserId::from(Uuid::now_v7());
    assert_eq!(store.users(&[missing, made.id, made.id]).await.unwrap(), [None, Some(made.clone()), Some(made.clone())]);
    assert_eq!(store.user_by_name("ann").await.unwrap().as_ref(), Some(&made));
    assert_eq!(store.user_by_external_id("host-1").await.unwrap().as_ref(), Some(&made));
    assert_eq!(store.user_by_name("bob").await.unwrap(), None);
    assert_eq!(store.credential(made.id).await.unwrap().unwrap().phc, "phc of ann");
    assert!(store.credential(missing).await.unwrap().is_none());
}

#[tokio::test]
async fn accounts_are_found_by_prefix_in_pages() {
    let store = store();
    for name in ["ann", "anna", "ann-lee", "bob", "an"] {
        store.create_user(&new_user(name, None)).await.unwrap();
    }
    let names = async |prefix: &str, after: Option<&str>, limit: usize| -> Vec<String> {
        store.users_by_prefix(prefix, after, limit).await.unwrap().into_iter().map(|user| user.username).collect()
    };
    assert_eq!(names("ann", None, 10).await, ["ann", "ann-lee", "anna"]);
    assert_eq!(names("ann", Some("ann"), 1).await, ["ann-lee"]);
    assert_eq!(names("%", None, 10).await, [""; 0]);
    assert_eq!(names("", Some("anna"), 10).await, ["bob"]);
}

#[tokio::test]
async fn a_profile_changes_field_by_field() {
    let store = store();
    let user = store.user().await;
    let named = store.update_profile(user, &ProfileChange { display_name: Some("New".into()), avatar_url: None }).await.unwrap();
    let pictured = store.update_profile(user, &ProfileChange { display_name: None, avatar_url: Some(Some("/a".into())) }).await.unwrap();
    assert_eq!((&*named.display_name, named.version), ("New", 2));
    assert_eq!((&*pictured.display_name, pictured.avatar_url.as_deref(), pictured.version), ("New", Some("/a"), 3));
    let bare = store.update_profile(user, &ProfileChange { display_name: None, avatar_url: Some(None) }).await.unwrap();
    assert_eq!(bare.avatar_url, None);
    assert_eq!(store.users(&[user]).await.unwrap(), [Some(bare)]);
    assert_eq!(code(store.update_profile(UserId::from(Uuid::now_v7()), &ProfileChange::default()).await), "USER_NOT_FOUND");
}

#[tokio::test]
async fn a_login_keeps_the_epoch_unless_the_device_was_signed_out() {
    let store = store();
    let user = store.user().await;
    let session = store.login(user).await;
    let (first, _) = store.record_login(&new_session(user, session.device)).await.unwrap();
    let ended = store.sign_out(&[(user, session.device), (user, session.device), (user, DeviceId::from(Uuid::now_v7()))]).await.unwrap();
    let out = ended[0].unwrap();
    assert_eq!((out.session_epoch, ended[1], ended[2]), (first.session_epoch + 1, None, None));
    let (again, _) = store.record_login(&new_session(user, session.device)).await.unwrap();
    assert_eq!(again.session_epoch, out.session_epoch + 1);
    assert!(again.signed_in);
    let log = store.login_log(user, 2).await.unwrap();
    assert_eq!(log.len(), 2);
    assert!(log[0].at > log[1].at && log[0].outcome == LoginOutcome::Success && !log[0].username.is_empty());
}

#[tokio::test]
async fn beyond_the_limit_the_devices_seen_longest_ago_are_signed_out() {
    let store = store();
    let user = store.user().await;
    let mut sessions = Vec::new();
    for _ in 0..DEVICES_MAX {
        sessions.push(store.login(user).await);
    }
    let caller = Caller { user, device: sessions[0].device, session_epoch: 1 };
    store.connect(&[caller], now()).await.unwrap().remove(0).unwrap();
    let (_, ended) = store.record_login(&new_session(user, DeviceId::from(Uuid::now_v7()))).await.unwrap();
    assert_eq!(ended.iter().map(|caller| caller.device).collect::<Vec<_>>(), [sessions[1].device]);
    let signed_in = store.devices_of(&[user]).await.unwrap().remove(0).into_iter().filter(|device| device.signed_in).count();
    assert_eq!(signed_in, DEVICES_MAX);
    assert!(matches!(store.rotate_refresh(&rotation(sessions[1].refresh_hash, now())).await.unwrap(), Refreshed::Refused));
}

fn rotation(presented_hash: [u8; 32], at: Timestamp) -> Rotation {
    let successor_hash = secret();
    Rotation {
        presented_hash,
        successor_hash,
        successor_sealed: successor_hash.to_vec(),
        expires_at: at.plus(Duration::from_secs(1000)),
        grace: Duration::from_secs(10),
        at,
    }
}

#[tokio::test]
async fn a_refresh_token_rotates_repeats_within_the_grace_and_is_fatal_after_it() {
    let store = store();
    let user = store.user().await;
    let session = store.login(user).await;
    let at = now();
    let first = rotation(session.refresh_hash, at);
    let Refreshed::Rotated { caller, user: account } = store.rotate_refresh(&first).await.unwrap() else { panic!("not rotated") };
    assert_eq!((caller.user, caller.device, caller.session_epoch, account.id), (user, session.device, 1, user));
    let in_grace = rotation(session.refresh_hash, at.plus(Duration::from_secs(10)));
    let Refreshed::Repeated { successor_sealed, .. } = store.rotate_refresh(&in_grace).await.unwrap() else { panic!("not repeated") };
    assert_eq!(successor_sealed, first.successor_hash);
    let second = rotation(first.successor_hash, at.plus(Duration::from_secs(11)));
    assert!(matches!(store.rotate_refresh(&second).await.unwrap(), Refreshed::Rotated { .. }));
    let late = rotation(session.refresh_hash, at.plus(Duration::from_secs(12)));
    let Refreshed::Reused { caller } = store.rotate_refresh(&late).await.unwrap() else { panic!("reuse was not noticed") };
    assert_eq!(caller.session_epoch, 2);
    let newest = rotation(second.successor_hash, at.plus(Duration::from_secs(13)));
    assert!(matches!(store.rotate_refresh(&newest).await.unwrap(), Refreshed::Refused), "the whole family ends");
    assert!(matches!(store.rotate_refresh(&rotation(secret(), at)).await.unwrap(), Refreshed::Refused));
    assert!(!store.devices(&[(user, session.device)]).await.unwrap()[0].as_ref().unwrap().signed_in);
}

#[tokio::test]
async fn racing_presentations_yield_one_successor() {
    let store = store();
    let user = store.user().await;
    let session = store.login(user).await;
    let at = now();
    let racers: Vec<Rotation> = (0..10).map(|_| rotation(session.refresh_hash, at)).collect();
    let outcomes = futures_util::future::join_all(racers.iter().map(|racer| store.rotate_refresh(racer))).await;
    let mut winner = None;
    let mut repeated = Vec::new();
    for (outcome, racer) in outcomes.into_iter().zip(&racers) {
        match outcome.unwrap() {
            Refreshed::Rotated { .. } => assert!(winner.replace(racer.successor_hash.to_vec()).is_none()),
            Refreshed::Repeated { successor_sealed, .. } => repeated.push(successor_sealed),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(repeated, vec![winner.unwrap(); 9]);
}

#[tokio::test]
async fn an_expired_token_and_a_disabled_account_are_refused() {
    let store = store();
    let user = store.user().await;
    let at = now();
    let mut session = new_session(user, DeviceId::from(Uuid::now_v7()));
    session.refresh_expires_at = at;
    store.record_login(&session).await.unwrap();
    assert!(matches!(store.rotate_refresh(&rotation(session.refresh_hash, at)).await.unwrap(), Refreshed::Refused));
    let live = store.login(user).await;
    let ended = store.set_user_status(user, UserStatus::Disabled).await.unwrap();
    assert_eq!(ended.len(), 2);
    assert!(matches!(store.rotate_refresh(&rotation(live.refresh_hash, at)).await.unwrap(), Refreshed::Refused));
    let caller = |epoch| Caller { user, device: live.device, session_epoch: epoch };
    assert_eq!(code(store.connect(&[caller(2)], at).await.unwrap().remove(0)), "SESSION_REVOKED");
    assert_eq!(code(store.record_login(&new_session(user, live.device)).await), "LOGIN_FAILED");
    assert!(store.set_user_status(user, UserStatus::Active).await.unwrap().is_empty());
    store.record_login(&new_session(user, live.device)).await.unwrap();
    assert_eq!(code(store.connect(&[caller(2), caller(3)], at).await.unwrap().remove(1)), "OK");
}

#[tokio::test]
async fn each_connection_has_a_higher_epoch_and_a_revoked_session_has_none() {
    let store = store();
    let user = store.user().await;
    let session = store.login(user).await;
    let caller = Caller { user, device: session.device, session_epoch: 1 };
    let stale = Caller { session_epoch: 0, ..caller };
    let external = Caller { user, device: DeviceId::from(Uuid::now_v7()), session_epoch: 0 };
    let stranger = Caller { user: UserId::from(Uuid::now_v7()), ..external };
    let callers = [caller, stale, caller, external, Caller { session_epoch: 1, ..external }, external, stranger];
    let epochs = store.connect(&callers, now()).await.unwrap();
    let epochs: Vec<Result<i64, &str>> =
        epochs.into_iter().map(|connected| connected.map(|connected| connected.connection_epoch).map_err(|error| error.code.as_str())).collect();
    let revoked = Err("SESSION_REVOKED");
    assert_eq!(epochs, [Ok(1), revoked, Ok(2), Ok(1), revoked, Ok(2), revoked]);
    store.sign_out(&[(user, external.device)]).await.unwrap();
    assert_eq!(code(store.connect(&[external], now()).await.unwrap().remove(0)), "SESSION_REVOKED");
    let newest = store.devices_of(&[user, stranger.user]).await.unwrap();
    assert_eq!((newest[0].len(), newest[1].len()), (2, 0));
}

#[tokio::test]
async fn a_new_password_can_sign_out_the_other_devices() {
    let store = store();
    let user = store.user().await;
    let (kept, other) = (store.login(user).await, store.login(user).await);
    let new = |phc: &str| Credential { user, phc: phc.into() };
    assert!(store.set_credential(&new("one"), None).await.unwrap().is_empty());
    let ended = store.set_credential(&new("two"), Some(Some(kept.device))).await.unwrap();
    assert_eq!(ended, [Caller { user, device: other.device, session_epoch: 2 }]);
    assert_eq!(store.credential(user).await.unwrap().unwrap().phc, "two");
    assert_eq!(store.set_credential(&new("three"), Some(None)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn failed_logins_are_kept_with_those_that_succeeded() {
    let store: TestStore = store();
    let user = store.user().await;
    let failed = |user, outcome| LoginAttempt { user, username: "x".into(), device: None, outcome, address: "::1".into(), at: now() };
    let attempts =
        [failed(Some(user), LoginOutcome::WrongPassword), failed(None, LoginOutcome::UnknownUser), failed(Some(user), LoginOutcome::Disabled)];
    store.record_failed_logins(&attempts).await.unwrap();
    assert_eq!(store.login_log(user, 10).await.unwrap(), [attempts[2].clone(), attempts[0].clone()]);
}
