//! Listeners, clients and values for the cases.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use gochat_core::{
    error::Result,
    ids::{ClientMsgId, ConversationId, DeviceId, MessageId, Seq, UserId},
    model::{
        Body, Caller, Conversation, ConversationKind, ConversationView, Draft, JoinMode, Member, Message, MessageKind, PayloadHash, Role, User,
        UserStatus,
    },
    ports::LogicApi,
    ports::Store,
    time::Timestamp,
};
use gochat_transport::grpc::{ClientSettings, Health, LogicClient, RepoClient, ServeSettings, Services, serve};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
    task::JoinHandle,
};

/// A listener that serves until it is stopped or killed.
pub struct Running {
    pub address: SocketAddr,
    pub health: Health,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<()>>,
}

impl Running {
    pub async fn start(services: Services) -> Self {
        Running::start_at(nobody(), services).await
    }

    pub async fn start_at(address: SocketAddr, services: Services) -> Self {
        Running::start_with(address, services, Duration::from_secs(5)).await
    }

    pub async fn start_with(address: SocketAddr, services: Services, grace: Duration) -> Self {
        // As a restarted server does it: the port may have connections of its predecessor.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(64).unwrap();
        let (stop, stopped) = oneshot::channel();
        let (address, health) = (listener.local_addr().unwrap(), services.health());
        let task = tokio::spawn(async move { serve(listener, services, &ServeSettings { grace }, async { drop(stopped.await) }).await });
        Running { address, health, stop: Some(stop), task }
    }

    pub async fn repo(store: impl Store) -> Self {
        Running::start(Services::default().repo(Arc::new(store))).await
    }

    pub async fn logic(api: impl LogicApi) -> Self {
        Running::start(Services::default().logic(Arc::new(api))).await
    }

    /// Asks it to end; the answer comes when it has.
    pub fn stop(mut self) -> JoinHandle<Result<()>> {
        self.stop.take().unwrap().send(()).unwrap();
        self.task
    }

    /// Ends it as a crash does: connections are cut at once.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

pub fn settings() -> ClientSettings {
    ClientSettings { deadline: Duration::from_secs(3), ..ClientSettings::default() }
}

pub fn repo_client(addresses: &[SocketAddr]) -> RepoClient {
    repo_client_with(addresses, &settings())
}

pub fn repo_client_with(addresses: &[SocketAddr], settings: &ClientSettings) -> RepoClient {
    RepoClient::new(&addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>(), settings).unwrap()
}

pub fn logic_client(addresses: &[SocketAddr]) -> LogicClient {
    LogicClient::new(&addresses.iter().map(|address| format!("http://{address}")).collect::<Vec<_>>(), &settings()).unwrap()
}

/// A port where nobody listens now, below the range that client sockets take: so it is still free when a server comes back.
pub fn nobody() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 15_000 + u16::try_from(std::process::id() % 50).unwrap();
    for _ in 0..100 {
        let address = SocketAddr::from(([127, 0, 0, 1], start + NEXT.fetch_add(1, Ordering::Relaxed) % 50));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}

pub fn user(name: &str) -> User {
    User {
        id: UserId::from_bytes([1; 16]),
        username: name.to_owned(),
        display_name: "Ä".into(),
        avatar_url: Some("/a.png".into()),
        status: UserStatus::Active,
        external_id: Some(String::new()),
        version: 3,
        created_at: Timestamp(4),
    }
}

pub fn caller() -> Caller {
    Caller { user: UserId::from_bytes([1; 16]), device: DeviceId::from_bytes([2; 16]), session_epoch: 7 }
}

pub fn draft(content: impl Into<String>) -> Draft {
    Draft {
        conversation: ConversationId::from_bytes([3; 16]),
        id: MessageId::from_bytes([4; 16]),
        sender: UserId::from_bytes([1; 16]),
        client_msg_id: ClientMsgId::from_bytes([5; 16]),
        body: Body { kind: MessageKind::Text, content: content.into().into() },
        payload_hash: PayloadHash { key_id: 6, hash: [7; 32] },
        reply_to: None,
        created_at: Timestamp(8),
    }
}

pub fn message(seq: i64) -> Message {
    let Draft { conversation, id, sender, client_msg_id, body, created_at, .. } = draft("hello");
    Message { conversation, seq: Seq(seq), id, sender, client_msg_id, body, reply_to: Some(Seq(1)), created_at }
}

pub fn member() -> Member {
    Member {
        conversation: ConversationId::from_bytes([3; 16]),
        user: UserId::from_bytes([1; 16]),
        role: Role::Admin,
        join_seq: Seq(1),
        leave_seq: None,
        read_seq: Seq(2),
        delivered_seq: Seq(3),
        muted: true,
        silenced_until: Some(Timestamp(0)),
        hidden_seq: Seq(0),
    }
}

pub fn conversation() -> Conversation {
    Conversation {
        id: ConversationId::from_bytes([3; 16]),
        kind: ConversationKind::Group,
        name: "n".into(),
        description: "d".into(),
        avatar_url: None,
        owner: Some(UserId::from_bytes([1; 16])),
        join_mode: JoinMode::Open,
        max_members: 10,
        member_count: 2,
        head_seq: Seq(5),
        dispatched_seq: Seq(4),
        members_seq: Seq(3),
        dissolved: false,
        version: 9,
        created_at: Timestamp(1),
        active_at: Timestamp(2),
    }
}

pub fn view() -> ConversationView {
    ConversationView {
        conversation: conversation(),
        member: member(),
        peer: None,
        last_message: Some(message(5)),
        unread: 2,
        peer_delivered_seq: Seq(4),
        peer_read_seq: Seq(3),
    }
}
