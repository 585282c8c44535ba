use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    conformance::world::{World, code, new_session, nobody, now, secret},
    error::Code,
    ids::DeviceId,
    limits::DEVICES_MAX,
    model::{Caller, LoginAttempt, LoginOutcome, NewSession, Refreshed, Rotation},
    ports::Store,
    time::Timestamp,
};

const GRACE: Duration = Duration::from_secs(10);

/// A second login with the same device keeps the device and its epoch; the log names attempts newest first, failed ones too.
pub async fn a_login_is_a_device_a_session_and_a_line_in_the_log(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let session = new_session(user, device());
    let (made, ended) = world.record_login(&session).await.unwrap();
    assert_eq!((made.user, made.id, made.name.as_str(), made.signed_in), (user, session.device, "Phone", true));
    assert_eq!(ended, []);
    let failed = LoginAttempt {
        user: Some(user),
        username: "somebody".into(),
        device: None,
        outcome: LoginOutcome::WrongPassword,
        address: "192.0.2.7".into(),
        at: now(),
    };
    let unknown = LoginAttempt { user: None, outcome: LoginOutcome::UnknownUser, ..failed.clone() };
    world.record_failed_logins(&[failed.clone(), unknown]).await.unwrap();
    let renamed = NewSession { device_name: "Tablet".into(), refresh_hash: secret(), at: now(), ..session.clone() };
    let (again, _) = world.record_login(&renamed).await.unwrap();
    assert_eq!((again.session_epoch, again.name.as_str(), again.created_at), (made.session_epoch, "Tablet", made.created_at));
    assert_eq!(world.devices(&[(user, session.device), (user, device()), (nobody(), session.device)]).await.unwrap(), [Some(again), None, None]);
    let log = world.login_log(user, 10).await.unwrap();
    assert_eq!(
        log.iter().map(|attempt| attempt.outcome).collect::<Vec<_>>(),
        [LoginOutcome::Success, LoginOutcome::WrongPassword, LoginOutcome::Success]
    );
    assert_eq!(log[1], failed);
    assert_eq!((log[0].device, log[0].address.as_str()), (Some(session.device), "192.0.2.1"));
    assert_eq!(world.login_log(user, 1).await.unwrap(), log[..1]);
}

/// [`DEVICES_MAX`] devices are signed in at most; a connection counts as being seen.
pub async fn beyond_the_limit_the_device_seen_longest_ago_is_signed_out(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let mut callers = Vec::new();
    for _ in 0..DEVICES_MAX {
        callers.push(world.login(user).await.0);
    }
    world.connect(&callers[..1], now()).await.unwrap().remove(0).unwrap();
    let (made, ended) = world.record_login(&new_session(user, device())).await.unwrap();
    assert_eq!(ended.iter().map(|caller| caller.device).collect::<Vec<_>>(), [callers[1].device]);
    assert!(ended[0].session_epoch > callers[1].session_epoch);
    let devices = world.devices_of(&[user, nobody()]).await.unwrap();
    assert_eq!((devices.len(), devices[0].len(), devices[1].len()), (2, DEVICES_MAX + 1, 0));
    assert_eq!(devices[0].iter().filter(|device| device.signed_in).count(), DEVICES_MAX);
    assert_eq!(devices[0][0].id, made.id, "newest first");
}

/// Signing out answers with the new epoch once; the next login begins above it.
pub async fn a_session_ends_once_and_its_epoch_only_rises(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let (caller, session) = world.login(user).await;
    let key = (user, caller.device);
    let ended = world.sign_out(&[key, (user, device()), key]).await.unwrap();
    let epoch = ended[0].unwrap().session_epoch;
    assert!(epoch > caller.session_epoch);
    assert_eq!(ended[1..], [None, None]);
    assert_eq!(world.sign_out(&[key]).await.unwrap(), [None]);
    assert!(matches!(world.rotate_refresh(&rotation(session.refresh_hash, now())).await.unwrap(), Refreshed::Refused));
    let (device, _) = world.record_login(&new_session(user, caller.device)).await.unwrap();
    assert!(device.session_epoch > epoch && device.signed_in);
    let outcomes = world.connect(&[caller, Caller { session_epoch: epoch, ..caller }], now()).await.unwrap();
    assert!(outcomes.iter().all(|outcome| code(outcome) == Some(Code::SessionRevoked)), "a token of an ended session stays out");
}

/// Every connection gets a higher epoch than the ones before, also within one batch and across logins; an external
/// authenticator's device is made at its first connection.
pub async fn a_connection_needs_the_current_session_and_gets_the_highest_epoch(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let (caller, _) = world.login(user).await;
    let unknown = Caller { user, device: device(), session_epoch: 7 };
    let outside = Caller { user, device: device(), session_epoch: 0 };
    let stranger = Caller { user: nobody(), device: device(), session_epoch: 0 };
    let outcomes = world.connect(&[caller, unknown, caller, outside, stranger], now()).await.unwrap();
    let epochs: Vec<Result<i64, Code>> =
        outcomes.into_iter().map(|outcome| outcome.map(|connected| connected.connection_epoch).map_err(|error| error.code)).collect();
    let revoked = Err(Code::SessionRevoked);
    assert_eq!([epochs[1], epochs[4]], [revoked, revoked]);
    let (first, second) = (epochs[0].unwrap(), epochs[2].unwrap());
    assert!(first < second && epochs[3].is_ok());
    let seen = now();
    world.sign_out(&[(user, caller.device)]).await.unwrap();
    let (again, _) = world.record_login(&new_session(user, caller.device)).await.unwrap();
    let again = Caller { session_epoch: again.session_epoch, ..caller };
    let third = world.connect(&[again], now()).await.unwrap().remove(0).unwrap().connection_epoch;
    assert!(second < third, "a new login does not begin again below the epochs of routes");
    let stored = world.devices(&[(user, caller.device)]).await.unwrap().remove(0).unwrap();
    assert!(stored.connection_epoch == third && stored.last_seen_at > seen);
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let world = world.clone();
        tasks.spawn(async move { world.connect(&[again], now()).await.unwrap().remove(0).unwrap().connection_epoch });
    }
    let epochs: HashSet<i64> = tasks.join_all().await.into_iter().collect();
    assert!(epochs.len() == 20 && epochs.iter().all(|epoch| *epoch > third), "racing connections have different epochs");
    world.sign_out(&[(user, outside.device)]).await.unwrap().remove(0).unwrap();
    assert_eq!(code(&world.connect(&[outside], now()).await.unwrap()[0]), Some(Code::SessionRevoked), "revoked from here");
}

/// Rotating gives the session's caller and account; a token shown again within the grace gets the same sealed successor; unknown
/// and expired ones are refused.
pub async fn a_refresh_token_is_good_for_one_use(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let (caller, session) = world.login(user).await;
    let first = Rotation { successor_sealed: b"first".to_vec(), ..rotation(session.refresh_hash, now()) };
    let Refreshed::Rotated { caller: rotated, user: account } = world.rotate_refresh(&first).await.unwrap() else { panic!("not rotated") };
    assert_eq!((rotated, account.id), (caller, user));
    let late = first.at.plus(GRACE);
    let repeat = Rotation { successor_sealed: b"second".to_vec(), ..rotation(session.refresh_hash, late) };
    let Refreshed::Repeated { caller: repeated, successor_sealed, .. } = world.rotate_refresh(&repeat).await.unwrap() else { panic!("not repeated") };
    assert_eq!((repeated, successor_sealed.as_slice()), (caller, &b"first"[..]));
    assert!(matches!(world.rotate_refresh(&rotation(repeat.successor_hash, late)).await.unwrap(), Refreshed::Refused), "never stored");
    assert!(matches!(world.rotate_refresh(&rotation(secret(), late)).await.unwrap(), Refreshed::Refused));
    let short = Rotation { expires_at: late.plus(GRACE), ..rotation(first.successor_hash, late) };
    assert!(matches!(world.rotate_refresh(&short).await.unwrap(), Refreshed::Rotated { .. }));
    let expired = rotation(short.successor_hash, short.expires_at);
    assert!(matches!(world.rotate_refresh(&expired).await.unwrap(), Refreshed::Refused));
    assert!(world.devices(&[(user, caller.device)]).await.unwrap()[0].as_ref().unwrap().signed_in, "an expired token revokes nothing");
}

/// One token shown at the same time by many has one successor: the others get that same one.
pub async fn racing_presentations_of_a_refresh_token_have_one_successor(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let (caller, session) = world.login(user).await;
    let at = now();
    let mut tasks = JoinSet::new();
    for n in 0..16u8 {
        let world = world.clone();
        let rotation = Rotation { successor_sealed: vec![n], ..rotation(session.refresh_hash, at) };
        tasks.spawn(async move { (n, rotation.successor_hash, world.rotate_refresh(&rotation).await.unwrap()) });
    }
    let outcomes = tasks.join_all().await;
    let winners: Vec<_> = outcomes.iter().filter(|(.., outcome)| matches!(outcome, Refreshed::Rotated { .. })).collect();
    assert_eq!(winners.len(), 1);
    let (winner, successor, _) = winners[0];
    for (n, hash, outcome) in &outcomes {
        if let Refreshed::Repeated { caller: repeated, successor_sealed, .. } = outcome {
            assert_eq!((*repeated, successor_sealed.as_slice()), (caller, &[*winner][..]));
            assert!(matches!(world.rotate_refresh(&rotation(*hash, at)).await.unwrap(), Refreshed::Refused), "the loser's successor is none");
        } else {
            assert_eq!(n, winner);
        }
    }
    assert!(matches!(world.rotate_refresh(&rotation(*successor, at)).await.unwrap(), Refreshed::Rotated { .. }));
}

/// A token shown after its grace was stolen: the session ends, with every token that came of it, and nothing else does.
pub async fn a_used_refresh_token_shown_late_ends_the_session(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let (caller, session) = world.login(user).await;
    let (other, other_session) = world.login(user).await;
    let first = rotation(session.refresh_hash, now());
    world.rotate_refresh(&first).await.unwrap();
    let late = first.at.plus(GRACE + Duration::from_millis(1));
    let Refreshed::Reused { caller: revoked } = world.rotate_refresh(&rotation(session.refresh_hash, late)).await.unwrap() else {
        panic!("not noticed")
    };
    assert_eq!((revoked.user, revoked.device), (user, caller.device));
    assert!(revoked.session_epoch > caller.session_epoch);
    assert!(matches!(world.rotate_refresh(&rotation(first.successor_hash, late)).await.unwrap(), Refreshed::Refused));
    let outcomes = world.connect(&[caller, revoked, other], now()).await.unwrap();
    assert_eq!(outcomes.iter().map(code).collect::<Vec<_>>(), [Some(Code::SessionRevoked), Some(Code::SessionRevoked), None]);
    assert!(matches!(world.rotate_refresh(&rotation(other_session.refresh_hash, late)).await.unwrap(), Refreshed::Rotated { .. }));
}

fn device() -> DeviceId {
    DeviceId::from(Uuid::now_v7())
}

fn rotation(presented_hash: [u8; 32], at: Timestamp) -> Rotation {
    Rotation { presented_hash, successor_hash: secret(), successor_sealed: vec![0], expires_at: Timestamp(i64::MAX), grace: GRACE, at }
}
