use std::sync::Arc;

use crate::{
    conformance::world::{World, code, new_session, new_user, nobody, now, refusal},
    error::Code,
    ids::DeviceId,
    model::{Credential, NewUser, ProfileChange, Rotation, UserStatus},
    ports::Store,
};

/// A second account with the name or the external id of another one is refused and leaves nothing.
pub async fn a_name_and_an_external_id_belong_to_one_account(store: Arc<dyn Store>) {
    let world = World(store);
    let first = NewUser { external_id: Some(nobody().to_string()), password_phc: Some("$phc$".into()), ..new_user() };
    let made = world.create_user(&first).await.unwrap();
    assert_eq!((made.id, &made.username, &made.external_id), (first.id, &first.username, &first.external_id));
    assert_eq!(made.status, UserStatus::Active);
    let namesake = NewUser { username: first.username.clone(), ..new_user() };
    assert_eq!(refusal(world.create_user(&namesake).await), Code::UsernameTaken);
    let double = NewUser { external_id: first.external_id.clone(), ..new_user() };
    assert_eq!(refusal(world.create_user(&double).await), Code::IdempotencyConflict);
    assert_eq!(world.users(&[namesake.id, double.id]).await.unwrap(), [None, None]);
    assert_eq!(world.user_by_name(&first.username).await.unwrap(), Some(made));
    assert_eq!(world.credential(first.id).await.unwrap().map(|stored| stored.phc), Some("$phc$".into()));
    assert!(world.credential(double.id).await.unwrap().is_none());
}

/// Each way to look accounts up finds them, in the order that it promises; what is absent is `None`.
pub async fn accounts_are_found_by_id_name_external_id_and_prefix(store: Arc<dyn Store>) {
    let world = World(store);
    let prefix = format!("p{}", &nobody().to_string().replace('-', "")[..24]);
    let mut made = Vec::new();
    // `_` is a letter like any other, not a pattern.
    for name in ["_b", "_a", "xa", "_a1"] {
        let external_id = Some(format!("{prefix}/{name}"));
        made.push(world.create_user(&NewUser { username: format!("{prefix}{name}"), external_id, ..new_user() }).await.unwrap());
    }
    let ids = [made[2].id, nobody(), made[0].id, made[2].id];
    assert_eq!(world.users(&ids).await.unwrap(), [Some(made[2].clone()), None, Some(made[0].clone()), Some(made[2].clone())]);
    assert_eq!(world.users(&[]).await.unwrap(), []);
    assert_eq!(world.user_by_name(&made[1].username).await.unwrap().as_ref(), Some(&made[1]));
    assert_eq!(world.user_by_name(&prefix).await.unwrap(), None);
    assert_eq!(world.user_by_external_id(&format!("{prefix}/xa")).await.unwrap().as_ref(), Some(&made[2]));
    assert_eq!(world.user_by_external_id(&prefix).await.unwrap(), None);
    let found = async |prefix: &str, after: Option<&str>, limit: usize| -> Vec<String> {
        world.users_by_prefix(prefix, after, limit).await.unwrap().into_iter().map(|user| user.username).collect()
    };
    let (first, all) = (format!("{prefix}_"), [&made[1], &made[3], &made[0]].map(|user| user.username.clone()));
    assert_eq!(found(&first, None, 10).await, all);
    assert_eq!(found(&first, None, 2).await, all[..2]);
    assert_eq!(found(&first, Some(&all[0]), 10).await, all[1..]);
    assert_eq!(found(&prefix, Some(&all[2]), 10).await, [made[2].username.clone()]);
    assert_eq!(found(&format!("{prefix}%"), None, 10).await, [""; 0]);
}

/// `None` leaves a field, `Some(None)` empties one, and the version grows with every change.
pub async fn a_profile_changes_only_in_what_is_named(store: Arc<dyn Store>) {
    let world = World(store);
    let made = world.create_user(&new_user()).await.unwrap();
    let picture = ProfileChange { avatar_url: Some(Some("/p.png".into())), ..ProfileChange::default() };
    let with_picture = world.update_profile(made.id, &picture).await.unwrap();
    assert_eq!((&with_picture.display_name, with_picture.avatar_url.as_deref()), (&made.display_name, Some("/p.png")));
    let name = ProfileChange { display_name: Some("Ada".into()), ..ProfileChange::default() };
    let renamed = world.update_profile(made.id, &name).await.unwrap();
    assert_eq!((renamed.display_name.as_str(), renamed.avatar_url.as_deref()), ("Ada", Some("/p.png")));
    let bare = world.update_profile(made.id, &ProfileChange { avatar_url: Some(None), ..ProfileChange::default() }).await.unwrap();
    assert_eq!((bare.display_name.as_str(), bare.avatar_url.as_deref()), ("Ada", None));
    assert!(made.version < with_picture.version && with_picture.version < renamed.version && renamed.version < bare.version);
    assert_eq!(world.users(&[made.id]).await.unwrap(), [Some(bare)]);
    assert_eq!(refusal(world.update_profile(nobody(), &name).await), Code::UserNotFound);
}

/// Disabling answers with the devices that were signed in, and nothing of their sessions is good afterwards; enabling does not
/// bring them back.
pub async fn a_disabled_account_is_signed_out_everywhere(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let (phone, session) = world.login(user).await;
    let (laptop, _) = world.login(user).await;
    let (gone, _) = world.login(user).await;
    world.sign_out(&[(user, gone.device)]).await.unwrap();
    let mut ended = world.set_user_status(user, UserStatus::Disabled).await.unwrap();
    ended.sort_by_key(|caller| caller.device);
    let mut expected = [phone, laptop];
    expected.sort_by_key(|caller| caller.device);
    assert_eq!(ended.iter().map(|caller| caller.device).collect::<Vec<_>>(), expected.map(|caller| caller.device));
    assert!(ended.iter().zip(expected).all(|(ended, before)| ended.session_epoch > before.session_epoch));
    assert_eq!(world.users(&[user]).await.unwrap().remove(0).unwrap().status, UserStatus::Disabled);
    let current = ended.iter().copied().find(|caller| caller.device == phone.device).unwrap();
    for status in [UserStatus::Disabled, UserStatus::Active] {
        world.set_user_status(user, status).await.unwrap();
        for outcome in world.connect(&[phone, current], now()).await.unwrap() {
            assert_eq!(code(&outcome), Some(Code::SessionRevoked), "{status:?}");
        }
        let rotation = Rotation {
            presented_hash: session.refresh_hash,
            successor_hash: crate::conformance::world::secret(),
            successor_sealed: vec![1],
            expires_at: crate::time::Timestamp(i64::MAX),
            grace: std::time::Duration::from_secs(10),
            at: now(),
        };
        assert!(matches!(world.rotate_refresh(&rotation).await.unwrap(), crate::model::Refreshed::Refused), "{status:?}");
        assert!(world.devices_of(&[user]).await.unwrap()[0].iter().all(|device| !device.signed_in), "{status:?}");
    }
    assert_eq!(world.users(&[user]).await.unwrap().remove(0).unwrap().status, UserStatus::Active);
    world.record_login(&new_session(user, DeviceId::from(uuid::Uuid::now_v7()))).await.unwrap();
    assert_eq!(refusal(world.set_user_status(nobody(), UserStatus::Disabled).await), Code::UserNotFound);
}

/// `None` signs nobody out, `Some(Some(device))` all but that device, `Some(None)` all.
pub async fn a_new_password_signs_out_whom_it_should(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let (phone, _) = world.login(user).await;
    let (laptop, _) = world.login(user).await;
    let credential = |phc: &str| Credential { user, phc: phc.into() };
    let signed_in = async || -> Vec<bool> {
        let found = world.devices(&[(user, phone.device), (user, laptop.device)]).await.unwrap();
        found.into_iter().map(|device| device.unwrap().signed_in).collect()
    };
    assert_eq!(world.set_credential(&credential("one"), None).await.unwrap(), []);
    assert_eq!(signed_in().await, [true, true]);
    let ended = world.set_credential(&credential("two"), Some(Some(phone.device))).await.unwrap();
    assert_eq!(ended.iter().map(|caller| caller.device).collect::<Vec<_>>(), [laptop.device]);
    assert_eq!(signed_in().await, [true, false]);
    let ended = world.set_credential(&credential("three"), Some(None)).await.unwrap();
    assert_eq!(ended.iter().map(|caller| caller.device).collect::<Vec<_>>(), [phone.device]);
    assert_eq!(signed_in().await, [false, false]);
    assert_eq!(world.credential(user).await.unwrap().unwrap().phc, "three");
}
