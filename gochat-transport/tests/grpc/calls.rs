//! What is called arrives as it was called, what is answered comes back as it was answered.

use std::time::Duration;

use gochat_core::{
    error::{Code, Error},
    ids::{DeviceId, Seq, UserId},
    model::{Connected, Device, GroupAction, JoinRequest, LoginAttempt, LoginOutcome, Mark, ProfileChange, PushLogEntry, PushOutcome, UserStatus},
    ports::{
        AccountsApi, AppendBatch, Appended, ConversationsApi, CreateConversation, HistoryPage, HistoryQuery, LoginRequest, Messages, MessagesApi,
        Page, RegisterRequest, Session, SyncAnswer, SyncRequest, SyncedConversation, Users,
    },
    time::Timestamp,
};

use crate::{
    fake::{Answer, Fake, answer},
    setup::{Running, caller, conversation, draft, logic_client, member, message, repo_client, user, view},
};

fn device() -> Device {
    Device {
        user: caller().user,
        id: caller().device,
        name: "phone".into(),
        session_epoch: 7,
        connection_epoch: 8,
        signed_in: true,
        last_seen_at: Timestamp(9),
        created_at: Timestamp(1),
    }
}

fn session() -> Session {
    Session { access_token: "a".into(), expires_in: 7200, refresh_token: "r".into(), user: user("u"), device_id: caller().device }
}

fn attempt() -> LoginAttempt {
    LoginAttempt {
        user: None,
        username: "u".into(),
        device: Some(caller().device),
        outcome: LoginOutcome::WrongPassword,
        address: "::1".into(),
        at: Timestamp(1),
    }
}

fn pushed() -> PushLogEntry {
    PushLogEntry {
        user_id: caller().user,
        device_id: caller().device,
        conversation_id: conversation().id,
        seq: Seq(1),
        outcome: Some(PushOutcome::Online),
        attempts: 1,
        created_at: Timestamp(1),
        finished_at: None,
    }
}

fn synced() -> SyncedConversation {
    SyncedConversation { id: conversation().id, head_seq: Seq(3), read_seq: Seq(1), messages: vec![message(2), message(3)], more: true }
}

/// What the logic role of these tests answers.
fn logic(method: &str) -> Answer {
    match method {
        "register" | "update_profile" => answer(user("u")),
        "login" | "refresh" => answer(session()),
        "connect" => answer(vec![Ok(Connected { connection_epoch: 5 }), Err(Error::from(Code::SessionRevoked))]),
        "sessions" => answer(vec![None, Some(0_i64), Some(i64::MIN)]),
        "devices" => answer(vec![device()]),
        "login_log" => answer(vec![attempt()]),
        "users" | "find_users" | "list_users" => answer(vec![user("u"), user("v")]),
        "create" => answer((view(), true)),
        "list" => answer(Page { items: vec![view()], next_cursor: Some("c".into()) }),
        "conversation" => answer(view()),
        "members" => answer(Page { items: vec![member()], next_cursor: None }),
        "manage" | "join_by_link" => answer(conversation()),
        "new_link" => answer("secret".to_owned()),
        "join_requests" => answer(vec![JoinRequest { conversation_id: conversation().id, user_id: caller().user, created_at: Timestamp(1) }]),
        "set_muted" => answer(member()),
        "history" => answer(HistoryPage { messages: vec![message(1)], more: true }),
        "sync" => answer(SyncAnswer { conversations: vec![synced()] }),
        "mark" => answer(vec![Ok(member()), Err(Error::from(Code::ConversationNotFound))]),
        "push_log" => answer(vec![pushed()]),
        _ => answer(()),
    }
}

/// Calls every method of the logic role and renders what came back.
async fn call_all(api: &(impl AccountsApi + ConversationsApi + MessagesApi)) -> Vec<String> {
    let (caller, id, device) = (caller(), conversation().id, DeviceId::from_bytes([9; 16]));
    let registration = RegisterRequest { username: "u".into(), password: "p".into(), display_name: None };
    let login = LoginRequest { username: "u".into(), password: "p".into(), device_id: Some(device), device_name: None, address: "::1".into() };
    let change = ProfileChange { display_name: None, avatar_url: Some(None) };
    let new = CreateConversation {
        kind: conversation().kind,
        participants: vec![UserId::from_bytes([8; 16])],
        name: "n".into(),
        description: String::new(),
        avatar_url: Some("x".into()),
        join_mode: conversation().join_mode,
        max_members: Some(3),
        idempotency_key: Some("k".into()),
    };
    let query = HistoryQuery { conversation: id, after: Some(Seq(0)), before: None, limit: usize::MAX };
    let have = SyncRequest { have: vec![(id, Seq(0)), (id, Seq(i64::MAX))], limit: 1 };
    let mark = Mark { conversation: id, user: caller.user, read_seq: Seq(2), delivered_seq: Seq(1) };
    let token = session();
    let got = api.login(&login).await.unwrap();
    assert_eq!((got.access_token, got.refresh_token, got.expires_in), (token.access_token, token.refresh_token, token.expires_in));
    vec![
        format!("{:?}", api.register(&registration).await),
        format!("{:?}", api.refresh("r").await),
        format!("{:?}", api.logout(&caller).await),
        format!("{:?}", AccountsApi::connect(api, &[caller, caller]).await),
        format!("{:?}", api.sessions(&[(caller.user, device)]).await),
        format!("{:?}", AccountsApi::devices(api, &caller).await),
        format!("{:?}", api.sign_out_device(&caller, device).await),
        format!("{:?}", AccountsApi::login_log(api, &caller, 3).await),
        format!("{:?}", AccountsApi::users(api, &caller, &[caller.user]).await),
        format!("{:?}", api.find_users(&caller, "q", 4).await),
        format!("{:?}", AccountsApi::update_profile(api, &caller, &change).await),
        format!("{:?}", api.change_password(&caller, "old", "new").await),
        format!("{:?}", api.list_users(None, 5).await),
        format!("{:?}", api.list_users(Some(""), 5).await),
        format!("{:?}", AccountsApi::set_user_status(api, "u", UserStatus::Disabled).await),
        format!("{:?}", api.reset_password("u", "new").await),
        format!("{:?}", api.create(&caller, &new).await),
        format!("{:?}", api.list(&caller, Some("c"), 6).await),
        format!("{:?}", api.conversation(&caller, id).await),
        format!("{:?}", ConversationsApi::members(api, &caller, id, None, 7).await),
        format!("{:?}", ConversationsApi::manage(api, &caller, id, &GroupAction::Leave).await),
        format!("{:?}", api.new_link(&caller, id).await),
        format!("{:?}", api.join_by_link(&caller, "s").await),
        format!("{:?}", ConversationsApi::join_requests(api, &caller, id).await),
        format!("{:?}", ConversationsApi::set_muted(api, &caller, id, true).await),
        format!("{:?}", MessagesApi::history(api, &caller, &query).await),
        format!("{:?}", api.sync(&caller, &have).await),
        format!("{:?}", MessagesApi::mark(api, &caller, &[mark]).await),
        format!("{:?}", MessagesApi::push_log(api, &caller, 8).await),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_to_logic_arrives_and_answers_as_without_a_wire() {
    let script = |method: &str| {
        let answer = logic(method);
        async move { answer }
    };
    let (here, there) = (Fake::new(script), Fake::new(script));
    let server = Running::logic(there.clone()).await;
    let direct = call_all(&here).await;
    let remote = call_all(&logic_client(&[server.address])).await;
    assert_eq!(remote, direct);
    assert_eq!(there.calls(), here.calls());
    assert_eq!(there.calls().len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_answers_each_item_in_its_order() {
    let appended = |seq| Appended { message: message(seq), repeated: seq == 2, member_count: 3, members_seq: Seq(1), dispatched_seq: Seq(0) };
    let store = Fake::new(move |_| async move {
        answer(vec![Ok(appended(1)), Err(Error::new(Code::Silenced, "quiet").retry_after(Duration::from_millis(1500))), Ok(appended(2))])
    });
    let server = Running::repo(store.clone()).await;
    let drafts = vec![draft("one"), draft("zwei ü"), draft("")];
    let batch = AppendBatch { drafts, dispatched: vec![(conversation().id, Seq(9))] };
    let outcomes = repo_client(&[server.address]).append(&batch).await.unwrap();
    assert_eq!(store.calls(), [format!("append({batch:?},)")]);
    assert_eq!(outcomes.len(), 3);
    assert_eq!(format!("{:?}", outcomes[0].as_ref().unwrap()), format!("{:?}", appended(1)));
    let refusal = outcomes[1].as_ref().unwrap_err();
    assert_eq!((refusal.code, &*refusal.message, refusal.retry_after), (Code::Silenced, "quiet", Some(Duration::from_millis(1500))));
    assert!(outcomes[2].as_ref().unwrap().repeated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_comes_back_with_code_message_and_wait_and_without_its_source() {
    for &code in Code::ALL {
        for wait in [None, Some(Duration::ZERO), Some(Duration::from_millis(2500))] {
            let store = Fake::new(move |_| async move {
                let mut error = Error::new(code, format!("cause of {} – ü %41", code.as_str())).with_source("password=hunter2");
                error.retry_after = wait;
                Err(error)
            });
            let server = Running::repo(store.clone()).await;
            let error = repo_client(&[server.address]).user_by_name("u").await.unwrap_err();
            assert_eq!((error.code, &*error.message), (code, &*format!("cause of {} – ü %41", code.as_str())));
            assert_eq!(error.retry_after, wait);
            assert!(!format!("{error:?}").contains("hunter2"), "the source stays with the server");
            assert_eq!(store.calls().len(), 1, "an answer is an answer: it is not asked for again");
        }
    }
}

#[test]
fn a_secret_is_never_shown() {
    use gochat_transport::pb::{logic, model, repo};
    let secret = "hunter2";
    let text = || secret.to_owned();
    let user = model::NewUser { username: "ann".into(), password_phc: Some(text()), ..Default::default() };
    let shown = [
        format!("{:?}", repo::CreateUserRequest { user: Some(user) }),
        format!(
            "{:?}",
            repo::SetCredentialRequest { credential: Some(model::Credential { phc: text(), ..Default::default() }), revoke_except: None }
        ),
        format!("{:?}", model::MaybeCredential { value: Some(model::Credential { phc: text(), ..Default::default() }) }),
        format!("{:?}", model::Rotation { successor_sealed: secret.into(), ..Default::default() }),
        format!("{:?}", model::refreshed::Repeated { successor_sealed: secret.into(), ..Default::default() }),
        format!("{:?}", model::Session { access_token: text(), refresh_token: text(), ..Default::default() }),
        format!("{:?}", logic::RegisterRequest { request: Some(model::Registration { password: text(), ..Default::default() }) }),
        format!("{:?}", logic::LoginRequest { request: Some(model::Login { password: text(), ..Default::default() }) }),
        format!("{:?}", logic::RefreshRequest { refresh_token: text() }),
        format!("{:?}", logic::ChangePasswordRequest { current: text(), new: text(), caller: None }),
        format!("{:?}", logic::ResetPasswordRequest { username: "ann".into(), new: text() }),
        format!("{:?}", logic::JoinByLinkRequest { secret: text(), caller: None }),
    ];
    assert!(shown.iter().all(|shown| !shown.contains(secret)), "{shown:#?}");
    assert!(shown[0].contains("ann"));
}
