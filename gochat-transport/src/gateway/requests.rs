//! What each frame of a client leads to.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gochat_core::{
    error::{Code, Error, Result},
    ids::MessageId,
    model::{Caller, Draft, Message, PayloadHash},
    ports::{HistoryPage, HistoryQuery, Origin, Record, SendRequest, SyncAnswer, Upstream},
    rules,
};
use tokio::{sync::oneshot, time::timeout};

use super::{
    Shared,
    connection::{Chunk, Connection, Session},
    frames::{ClientFrame, ServerFrame},
    presence::{AuthJob, Outcome},
    reader::{Reader, State, Turn, Verifying},
    websocket::close,
};

/// What a client waits when something is full.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// What a message costs in an answer beside its content, about.
const MESSAGE_BYTES: usize = 320;

impl Reader {
    /// Handles one message of the client.
    pub(super) fn handle(&mut self, payload: &[u8], turn: &mut Turn) {
        let connection = &self.connection;
        let settings = &connection.shard.shared.settings;
        let (id, frame) = match connection.codec.decode(payload, settings.json_depth_max) {
            Ok(read) => read,
            Err(unreadable) => {
                turn.reply(connection, &ServerFrame::error(unreadable.id, &unreadable.error));
                if connection.session().is_none() {
                    turn.close = Some(close::UNAUTHENTICATED);
                }
                return;
            }
        };
        let Some(session) = connection.session() else {
            match frame {
                ClientFrame::Auth { token } => self.authenticate(id, token, turn),
                _ => {
                    let error = Error::new(Code::Unauthenticated, "the first frame is auth");
                    turn.reply(connection, &ServerFrame::error(Some(id), &error));
                    turn.close = Some(close::UNAUTHENTICATED);
                }
            }
            return;
        };
        let caller = session.caller;
        match frame {
            ClientFrame::Auth { token } => self.authenticate(id, token, turn),
            ClientFrame::Ping => turn.reply(connection, &ServerFrame::Pong { id }),
            ClientFrame::Send(request) => match self.admit(id, caller, request) {
                Ok(record) => turn.sends.push((id, record)),
                Err(error) => turn.reply(&self.connection, &ServerFrame::error(Some(id), &error)),
            },
            ClientFrame::Mark { conversation, read_seq, delivered_seq } => {
                match connection.shard.shared.marks.add(caller, conversation, read_seq, delivered_seq) {
                    Ok(()) => turn.reply(connection, &ServerFrame::Ok { id }),
                    Err(error) => turn.reply(connection, &ServerFrame::error(Some(id), &error)),
                }
            }
            request @ (ClientFrame::Sync(_) | ClientFrame::History(_) | ClientFrame::List { .. }) => {
                let waiting = connection.requests.fetch_add(1, Ordering::Relaxed);
                if waiting >= settings.requests_in_flight_max {
                    connection.requests.fetch_sub(1, Ordering::Relaxed);
                    connection.shard.shared.counters.rate_refusals.one();
                    let cause = format!("{} requests of this connection wait for their answers", settings.requests_in_flight_max);
                    let error = Error::new(Code::RateLimited, cause).retry_after(RETRY_AFTER);
                    return turn.reply(connection, &ServerFrame::error(Some(id), &error));
                }
                connection.shard.spawn(serve(connection.clone(), caller, id, request));
            }
        }
    }

    /// Checks what can be checked without the store.
    fn admit(&mut self, id: u64, caller: Caller, request: SendRequest) -> Result<Record> {
        let shared = &self.connection.shard.shared;
        shared.accepts_sends()?;
        if !self.sends.take(shared.settings.sends_per_second, shared.settings.send_burst, &self.connection) {
            shared.counters.rate_refusals.one();
            return Err(Error::from(Code::RateLimited).retry_after(RETRY_AFTER));
        }
        rules::check_body(&request.body)?;
        Ok(shared.upstream(&caller, request, self.connection.id, id))
    }

    fn authenticate(&mut self, id: u64, token: String, turn: &mut Turn) {
        let (reply, answer) = oneshot::channel();
        let connection = &self.connection;
        let job = AuthJob { token, connection: connection.id, renews: connection.session().is_some(), reply };
        match connection.shard.shared.authenticate(job) {
            Ok(()) => {
                let admission = match std::mem::replace(&mut self.state, State::Open) {
                    State::Fresh(admission) => admission,
                    State::Verifying(_) | State::Open => None,
                };
                self.state = State::Verifying(Box::new(Verifying { id, answer, admission }));
            }
            Err(error) => {
                turn.reply(connection, &ServerFrame::error(Some(id), &error));
                if connection.session().is_none() {
                    turn.close = Some(close::TOO_MANY);
                }
            }
        }
    }

    /// Takes in how a verification ended.
    pub(super) fn verified(&mut self, outcome: std::result::Result<Outcome, oneshot::error::RecvError>, turn: &mut Turn) {
        let State::Verifying(verifying) = std::mem::replace(&mut self.state, State::Open) else { return };
        let connection = &self.connection;
        let shared = &connection.shard.shared;
        let outcome = outcome.unwrap_or_else(|_| Err((Code::Unavailable.into(), close::FAULT)));
        let verified = match outcome {
            Ok(verified) => verified,
            Err((error, code)) => {
                shared.counters.auth_refusals.one();
                turn.reply(connection, &ServerFrame::error(Some(verifying.id), &error));
                if connection.session().is_none() {
                    self.state = State::Fresh(verifying.admission);
                    turn.close = Some(code);
                }
                return;
            }
        };
        let caller = verified.identity.caller;
        match connection.session() {
            None => {
                let expires_at = verified.identity.expires_at.0.into();
                connection.authenticated(Session { caller, epoch: verified.epoch, expires_at });
                if !shared.register(connection) {
                    turn.close = Some(close::TAKEN_OVER);
                    return;
                }
            }
            Some(session) if (session.caller.user, session.caller.device) == (caller.user, caller.device) => {
                session.expires_at.store(verified.identity.expires_at.0, Ordering::Relaxed);
            }
            Some(_) => {
                let error = Error::new(Code::Denied, "the token belongs to another device");
                return turn.reply(connection, &ServerFrame::error(Some(verifying.id), &error));
            }
        }
        let ready = ServerFrame::Ready {
            id: verifying.id,
            user: caller.user,
            device: caller.device,
            server_time: shared.ports.clock.now(),
            heartbeat_s: shared.settings.ping_after.as_secs(),
        };
        turn.reply(connection, &ready);
    }
}

impl Shared {
    /// A message on its way up.
    pub(super) fn upstream(&self, caller: &Caller, request: SendRequest, connection: u64, id: u64) -> Record {
        let draft = Draft {
            conversation: request.conversation,
            id: MessageId::from(self.ports.ids.uuid()),
            sender: caller.user,
            client_msg_id: request.client_msg_id,
            body: request.body,
            // Keyed and set by logic (decision 32).
            payload_hash: PayloadHash { key_id: 0, hash: [0; 32] },
            reply_to: request.reply_to,
            created_at: self.ports.clock.now(),
        };
        let origin = Origin { gateway: self.ports.id.clone(), connection, request: id, device: caller.device };
        Record::Upstream(Arc::new(Upstream { draft, origin }))
    }
}

/// A refusal that says when to come back.
pub(super) fn overloaded(error: Error) -> Error {
    match error.retry_after {
        Some(_) => error,
        None => error.retry_after(RETRY_AFTER),
    }
}

/// Serves a request that needs logic, and answers it.
async fn serve(connection: Arc<Connection>, caller: Caller, id: u64, request: ClientFrame) {
    let shared = &connection.shard.shared;
    let mut bytes = match timeout(shared.settings.http_request_deadline, ask(&connection, &caller, id, request)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            if error.code == Code::Internal {
                tracing::error!(?error, "a request failed");
            }
            connection.codec.frame(&ServerFrame::error(Some(id), &error))
        }
        Err(_) => connection.codec.frame(&ServerFrame::error(Some(id), &Code::Unavailable.into())),
    };
    connection.requests.fetch_sub(1, Ordering::Relaxed);
    if !connection.has_room(bytes.len()) {
        let error = Error::new(Code::Overloaded, "answers wait that this connection does not read").retry_after(Duration::from_secs(1));
        bytes = connection.codec.frame(&ServerFrame::error(Some(id), &error));
    }
    shared.counters.frames_out.one();
    connection.send(&[Chunk { bytes, push: false }]);
}

async fn ask(connection: &Connection, caller: &Caller, id: u64, request: ClientFrame) -> Result<bytes::Bytes> {
    let shared = &connection.shard.shared;
    let (api, bytes_max) = (&shared.ports.api, shared.settings.answer_bytes_max);
    match request {
        ClientFrame::Sync(request) => {
            let mut answer = api.sync(caller, &request).await?;
            fit_sync(&mut answer, bytes_max);
            Ok(connection.codec.frame(&ServerFrame::Synced { id, answer: &answer }))
        }
        ClientFrame::History(query) => {
            let mut page = api.history(caller, &query).await?;
            fit_history(&mut page, &query, bytes_max);
            Ok(connection.codec.frame(&ServerFrame::History { id, conversation: query.conversation, page: &page }))
        }
        ClientFrame::List { cursor, limit } => {
            let page = api.list(caller, cursor.as_deref(), limit).await?;
            Ok(connection.codec.frame(&ServerFrame::List { id, page: &page }))
        }
        _ => Err(Code::UnknownFrame.into()),
    }
}

/// How many of these messages fit into so many bytes; one always does.
fn fitting<'a>(messages: impl Iterator<Item = &'a Message>, bytes_max: usize) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for message in messages {
        bytes += message.body.content.len() + MESSAGE_BYTES;
        if bytes > bytes_max && count > 0 {
            break;
        }
        count += 1;
    }
    count
}

/// Keeps the part of a page that is next to where the client goes on.
fn fit_history(page: &mut HistoryPage, query: &HistoryQuery, bytes_max: usize) {
    let count = match query.after {
        Some(_) => fitting(page.messages.iter(), bytes_max),
        None => fitting(page.messages.iter().rev(), bytes_max),
    };
    if count < page.messages.len() {
        page.more = true;
        match query.after {
            Some(_) => page.messages.truncate(count),
            None => drop(page.messages.drain(..page.messages.len() - count)),
        }
    }
}

fn fit_sync(answer: &mut SyncAnswer, bytes_max: usize) {
    let mut left = bytes_max;
    let mut first = true;
    for conversation in answer.conversations.iter_mut().filter(|conversation| !conversation.messages.is_empty()) {
        let count = if first || left > 0 { fitting(conversation.messages.iter(), left) } else { 0 };
        first = false;
        let bytes: usize = conversation.messages.iter().take(count).map(|message| message.body.content.len() + MESSAGE_BYTES).sum();
        left = left.saturating_sub(bytes);
        if count < conversation.messages.len() {
            conversation.messages.truncate(count);
            conversation.more = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use gochat_core::{
        ids::{ClientMsgId, ConversationId, Seq, UserId},
        model::{Body, MessageKind},
        ports::SyncedConversation,
        time::Timestamp,
    };

    use super::*;

    fn messages(count: i64) -> Vec<Message> {
        let message = |seq| Message {
            conversation: ConversationId::from_bytes([1; 16]),
            seq: Seq(seq),
            id: MessageId::from_bytes([2; 16]),
            sender: UserId::from_bytes([3; 16]),
            client_msg_id: ClientMsgId::from_bytes([4; 16]),
            body: Body { kind: MessageKind::Text, content: "x".repeat(1000).into() },
            reply_to: None,
            created_at: Timestamp(0),
        };
        (1..=count).map(message).collect()
    }

    #[test]
    fn a_page_that_is_too_large_keeps_what_is_next_to_its_bound() {
        let query = |after, before| HistoryQuery { conversation: ConversationId::from_bytes([1; 16]), after, before, limit: 200 };
        let fit = |query: HistoryQuery, bytes_max| {
            let mut page = HistoryPage { messages: messages(10), more: false };
            fit_history(&mut page, &query, bytes_max);
            (page.messages.iter().map(|message| message.seq.0).collect::<Vec<_>>(), page.more)
        };
        assert_eq!(fit(query(Some(Seq(0)), None), 3 * 1320), (vec![1, 2, 3], true));
        assert_eq!(fit(query(None, Some(Seq(11))), 3 * 1320), (vec![8, 9, 10], true));
        assert_eq!(fit(query(None, None), 1), (vec![10], true));
        assert!(!fit(query(None, None), 100_000).1);
    }

    #[test]
    fn a_sync_that_is_too_large_tells_where_to_go_on() {
        let synced = |n| SyncedConversation {
            id: ConversationId::from_bytes([n; 16]),
            head_seq: Seq(3),
            read_seq: Seq(0),
            messages: messages(3),
            more: false,
        };
        let mut answer = SyncAnswer { conversations: vec![synced(1), synced(2), synced(3)] };
        fit_sync(&mut answer, 4 * 1320);
        let kept: Vec<_> = answer.conversations.iter().map(|conversation| (conversation.messages.len(), conversation.more)).collect();
        assert_eq!(kept, [(3, false), (1, true), (0, true)]);
        fit_sync(&mut answer, 1);
        assert_eq!(answer.conversations[0].messages.len(), 1, "there is always progress");
    }
}
