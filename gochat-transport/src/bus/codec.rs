//! Records as bytes: protobuf with a version. What comes from a bus is untrusted: ids, kinds and codes are checked.

use std::{cell::RefCell, sync::Arc};

use bytes::{Bytes, BytesMut};
use gochat_core::{
    error::{Code, Error, Result},
    ids::{ClientMsgId, ConversationId, DeviceId, MessageId, Seq, UserId},
    model::{Body, Draft, Message, MessageKind, PayloadHash},
    ports::{Ack, Delivery, Downstream, Origin, Payload, Record, Refusal, Signal, Stored, Target, Task, Upstream},
    time::Timestamp,
};
use prost::Message as _;

use crate::pb::bus as pb;

/// Version of the schema that is written; the only one that is read.
const VERSION: u32 = 1;
/// Bytes of one record at most: Kafka's usual limit.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// The bytes of a record.
pub fn encode(record: &Record) -> Bytes {
    record_out(record).encode_to_vec().into()
}

/// The bytes of a record, in parts of at most `max` bytes each. Told one after the other, the parts say what the whole says:
/// answers before deliveries before signals, payloads and messages in their order, and nothing twice to anybody.
///
/// # Errors
/// `TOO_LARGE`: a single item is larger than `max`; no part of the record is given then.
pub fn encode_within(record: &Record, max: usize) -> Result<Vec<Bytes>> {
    let mut parts = Vec::with_capacity(1);
    // The parts that are still to be measured, the next one last.
    let mut waiting = vec![record_out(record)];
    while let Some(mut first) = waiting.pop() {
        let bytes = first.encoded_len();
        if bytes <= max {
            parts.push(first.encode_to_vec().into());
            continue;
        }
        let second = first
            .body
            .as_mut()
            .and_then(halve)
            .ok_or_else(|| Error::new(Code::TooLarge, format!("an item of {bytes} bytes does not fit into a record of at most {max}")))?;
        waiting.push(pb::Record { version: VERSION, body: Some(second) });
        waiting.push(first);
    }
    Ok(parts)
}

/// Splits off the second half; nothing where there is only one thing left.
fn halve(body: &mut pb::record::Body) -> Option<pb::record::Body> {
    match body {
        pb::record::Body::Upstream(_) => None,
        pb::record::Body::Downstream(downstream) => halve_downstream(downstream).map(pb::record::Body::Downstream),
        pb::record::Body::Task(task) => {
            let second = match task.task.as_mut()? {
                pb::task::Task::Fanout(fanout) => {
                    let messages = second_half(&mut fanout.messages)?;
                    let from = fanout.from.split_off(fanout.messages.len().min(fanout.from.len()));
                    pb::task::Task::Fanout(pb::Fanout { messages, from, members_seq: fanout.members_seq })
                }
                pb::task::Task::Offline(offline) => {
                    let users = second_half(&mut offline.users)?;
                    pb::task::Task::Offline(pb::Offline { users, ..offline.clone() })
                }
            };
            Some(pb::record::Body::Task(pb::Task { task: Some(second) }))
        }
    }
}

fn halve_downstream(downstream: &mut pb::Downstream) -> Option<pb::Downstream> {
    let (acks, deliveries, signals) = (downstream.acks.len(), downstream.deliveries.len(), downstream.signals.len());
    if acks + deliveries + signals > 1 {
        let half = (acks + deliveries + signals) / 2;
        return Some(pb::Downstream {
            acks: downstream.acks.split_off(half.min(acks)),
            deliveries: downstream.deliveries.split_off(half.saturating_sub(acks).min(deliveries)),
            signals: downstream.signals.split_off(half.saturating_sub(acks + deliveries)),
        });
    }
    let delivery = downstream.deliveries.first_mut()?;
    let second = if let Some(payloads) = second_half(&mut delivery.payloads) {
        pb::Delivery { targets: delivery.targets.clone(), payloads }
    } else if let Some(targets) = second_half(&mut delivery.targets) {
        pb::Delivery { targets, payloads: delivery.payloads.clone() }
    } else {
        let pb::payload::Payload::Heads(heads) = delivery.payloads.first_mut()?.payload.as_mut()? else { return None };
        let heads = pb::payload::Payload::Heads(pb::Heads { heads: second_half(&mut heads.heads)? });
        pb::Delivery { targets: delivery.targets.clone(), payloads: vec![pb::Payload { payload: Some(heads) }] }
    };
    Some(pb::Downstream { deliveries: vec![second], ..pb::Downstream::default() })
}

fn second_half<T>(items: &mut Vec<T>) -> Option<Vec<T>> {
    (items.len() > 1).then(|| items.split_off(items.len() / 2))
}

fn record_out(record: &Record) -> pb::Record {
    let body = match record {
        Record::Upstream(upstream) => pb::record::Body::Upstream(upstream_out(upstream)),
        Record::Downstream(downstream) => pb::record::Body::Downstream(downstream_out(downstream)),
        Record::Task(task) => pb::record::Body::Task(task_out(task)),
    };
    pb::Record { version: VERSION, body: Some(body) }
}

/// The record of these bytes; `INVALID_REQUEST` for what is none: such a record is poison and belongs to the dead letters.
pub fn decode(bytes: Bytes) -> Result<Record> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(poison("larger than a record may be"));
    }
    let record = pb::Record::decode(bytes).map_err(|error| Error::new(Code::InvalidRequest, "not a record").with_source(error))?;
    if record.version != VERSION {
        return Err(Error::new(Code::InvalidRequest, format!("a record of schema version {}, but {VERSION} is known", record.version)));
    }
    Ok(match record.body.ok_or_else(|| poison("a record without a body"))? {
        pb::record::Body::Upstream(upstream) => Record::Upstream(Arc::new(upstream_in(upstream)?)),
        pb::record::Body::Downstream(downstream) => Record::Downstream(Arc::new(downstream_in(downstream)?)),
        pb::record::Body::Task(task) => Record::Task(Arc::new(task_in(task)?)),
    })
}

fn poison(why: &'static str) -> Error {
    Error::new(Code::InvalidRequest, why)
}

/// Bytes of a block that ids are cut from.
const ID_BLOCK_BYTES: usize = 4 * 1024;

thread_local! {
    static IDS: RefCell<BytesMut> = RefCell::default();
}

/// An id as it travels, cut from a block that many share: one of its own would be allocated twice, here and when it is encoded.
pub(crate) fn id_bytes(id: &[u8; 16]) -> Bytes {
    IDS.with_borrow_mut(|block| {
        if block.capacity() < id.len() {
            block.reserve(ID_BLOCK_BYTES);
        }
        block.extend_from_slice(id);
        block.split().freeze()
    })
}

macro_rules! id_out {
    ($id:expr) => {
        id_bytes($id.as_bytes())
    };
}

fn body_in(kind: i32, content: Bytes) -> Result<Body> {
    let kind = MessageKind::from_number(kind).ok_or_else(|| poison("an unknown message kind"))?;
    let content = content.try_into().map_err(|error| Error::new(Code::InvalidRequest, "a message that is not UTF-8").with_source(error))?;
    Ok(Body { kind, content })
}

fn upstream_out(upstream: &Upstream) -> pb::Upstream {
    let Upstream { draft, origin } = upstream;
    pb::Upstream {
        draft: Some(draft_out(draft)),
        origin: Some(pb::Origin {
            gateway: origin.gateway.to_string(),
            connection: origin.connection,
            request: origin.request,
            device: id_out!(origin.device),
        }),
    }
}

fn upstream_in(upstream: pb::Upstream) -> Result<Upstream> {
    let draft = upstream.draft.ok_or_else(|| poison("an upstream record without a draft"))?;
    let origin = upstream.origin.ok_or_else(|| poison("an upstream record without an origin"))?;
    Ok(Upstream {
        // Keyed by the role that stores: the key does not travel, nor does what it made.
        draft: draft_in(draft, PayloadHash { key_id: 0, hash: [0; 32] })?,
        origin: Origin {
            gateway: origin.gateway.parse()?,
            connection: origin.connection,
            request: origin.request,
            device: DeviceId::from_slice(&origin.device)?,
        },
    })
}

pub(crate) fn draft_out(draft: &Draft) -> pb::Draft {
    pb::Draft {
        conversation: id_out!(draft.conversation),
        id: id_out!(draft.id),
        sender: id_out!(draft.sender),
        client_msg_id: id_out!(draft.client_msg_id),
        kind: draft.body.kind as i32,
        content: draft.body.content.as_bytes().clone(),
        reply_to: draft.reply_to.map(|seq| seq.0),
        created_at: draft.created_at.0,
    }
}

pub(crate) fn draft_in(draft: pb::Draft, payload_hash: PayloadHash) -> Result<Draft> {
    Ok(Draft {
        conversation: ConversationId::from_slice(&draft.conversation)?,
        id: MessageId::from_slice(&draft.id)?,
        sender: UserId::from_slice(&draft.sender)?,
        client_msg_id: ClientMsgId::from_slice(&draft.client_msg_id)?,
        body: body_in(draft.kind, draft.content)?,
        payload_hash,
        reply_to: draft.reply_to.map(Seq),
        created_at: Timestamp(draft.created_at),
    })
}

pub(crate) fn message_out(message: &Message) -> pb::Message {
    pb::Message {
        conversation: id_out!(message.conversation),
        seq: message.seq.0,
        id: id_out!(message.id),
        sender: id_out!(message.sender),
        client_msg_id: id_out!(message.client_msg_id),
        kind: message.body.kind as i32,
        content: message.body.content.as_bytes().clone(),
        reply_to: message.reply_to.map(|seq| seq.0),
        created_at: message.created_at.0,
    }
}

pub(crate) fn message_in(message: pb::Message) -> Result<Message> {
    Ok(Message {
        conversation: ConversationId::from_slice(&message.conversation)?,
        seq: Seq(message.seq),
        id: MessageId::from_slice(&message.id)?,
        sender: UserId::from_slice(&message.sender)?,
        client_msg_id: ClientMsgId::from_slice(&message.client_msg_id)?,
        body: body_in(message.kind, message.content)?,
        reply_to: message.reply_to.map(Seq),
        created_at: Timestamp(message.created_at),
    })
}

fn downstream_out(downstream: &Downstream) -> pb::Downstream {
    pb::Downstream {
        acks: downstream.acks.iter().map(ack_out).collect(),
        deliveries: downstream.deliveries.iter().map(delivery_out).collect(),
        signals: downstream.signals.iter().map(signal_out).collect(),
    }
}

fn downstream_in(downstream: pb::Downstream) -> Result<Downstream> {
    Ok(Downstream {
        acks: downstream.acks.into_iter().map(ack_in).collect::<Result<_>>()?,
        deliveries: downstream.deliveries.into_iter().map(delivery_in).collect::<Result<_>>()?,
        signals: downstream.signals.into_iter().map(signal_in).collect::<Result<_>>()?,
    })
}

fn ack_out(ack: &Ack) -> pb::Ack {
    let outcome = match &ack.outcome {
        Ok(stored) => pb::ack::Outcome::Stored(pb::Stored {
            conversation: id_out!(stored.conversation),
            seq: stored.seq.0,
            message: id_out!(stored.message),
            created_at: stored.created_at.0,
        }),
        Err(refusal) => pb::ack::Outcome::Refusal(pb::Refusal {
            code: refusal.code.as_str().to_owned(),
            message: refusal.message.clone(),
            retry_after_ms: refusal.retry_after_ms,
        }),
    };
    pb::Ack { connection: ack.connection, request: ack.request, outcome: Some(outcome) }
}

fn ack_in(ack: pb::Ack) -> Result<Ack> {
    let outcome = match ack.outcome.ok_or_else(|| poison("an ack without an outcome"))? {
        pb::ack::Outcome::Stored(stored) => Ok(Stored {
            conversation: ConversationId::from_slice(&stored.conversation)?,
            seq: Seq(stored.seq),
            message: MessageId::from_slice(&stored.message)?,
            created_at: Timestamp(stored.created_at),
        }),
        pb::ack::Outcome::Refusal(refusal) => Err(Refusal {
            code: Code::parse(&refusal.code).ok_or_else(|| poison("an unknown code"))?,
            message: refusal.message,
            retry_after_ms: refusal.retry_after_ms,
        }),
    };
    Ok(Ack { connection: ack.connection, request: ack.request, outcome })
}

fn delivery_out(delivery: &Delivery) -> pb::Delivery {
    pb::Delivery {
        targets: delivery.targets.iter().map(|target| pb::Target { connection: target.connection, epoch: target.epoch }).collect(),
        payloads: delivery.payloads.iter().map(payload_out).collect(),
    }
}

fn delivery_in(delivery: pb::Delivery) -> Result<Delivery> {
    Ok(Delivery {
        targets: delivery.targets.into_iter().map(|target| Target { connection: target.connection, epoch: target.epoch }).collect(),
        payloads: delivery.payloads.into_iter().map(payload_in).collect::<Result<_>>()?,
    })
}

fn payload_out(payload: &Payload) -> pb::Payload {
    let payload = match payload {
        Payload::Message(message) => pb::payload::Payload::Message(message_out(message)),
        Payload::Marks { conversation, user, read_seq, delivered_seq } => pb::payload::Payload::Marks(pb::Marks {
            conversation: id_out!(conversation),
            user: id_out!(user),
            read_seq: read_seq.0,
            delivered_seq: delivered_seq.0,
        }),
        Payload::Heads(heads) => pb::payload::Payload::Heads(pb::Heads {
            heads: heads.iter().map(|(conversation, seq)| pb::Head { conversation: id_out!(conversation), seq: seq.0 }).collect(),
        }),
    };
    pb::Payload { payload: Some(payload) }
}

fn payload_in(payload: pb::Payload) -> Result<Payload> {
    Ok(match payload.payload.ok_or_else(|| poison("an empty payload"))? {
        pb::payload::Payload::Message(message) => Payload::Message(Arc::new(message_in(message)?)),
        pb::payload::Payload::Marks(marks) => Payload::Marks {
            conversation: ConversationId::from_slice(&marks.conversation)?,
            user: UserId::from_slice(&marks.user)?,
            read_seq: Seq(marks.read_seq),
            delivered_seq: Seq(marks.delivered_seq),
        },
        pb::payload::Payload::Heads(heads) => Payload::Heads(
            heads.heads.into_iter().map(|head| Ok((ConversationId::from_slice(&head.conversation)?, Seq(head.seq)))).collect::<Result<_>>()?,
        ),
    })
}

fn signal_out(signal: &Signal) -> pb::Signal {
    let Signal::Revoked { user, device, session_epoch } = signal;
    let revoked = pb::Revoked { user: id_out!(user), device: id_out!(device), session_epoch: *session_epoch };
    pb::Signal { signal: Some(pb::signal::Signal::Revoked(revoked)) }
}

fn signal_in(signal: pb::Signal) -> Result<Signal> {
    let pb::signal::Signal::Revoked(revoked) = signal.signal.ok_or_else(|| poison("an empty signal"))?;
    Ok(Signal::Revoked {
        user: UserId::from_slice(&revoked.user)?,
        device: DeviceId::from_slice(&revoked.device)?,
        session_epoch: revoked.session_epoch,
    })
}

fn task_out(task: &Task) -> pb::Task {
    let task = match task {
        Task::Fanout { messages, members_seq, from } => pb::task::Task::Fanout(pb::Fanout {
            messages: messages.iter().map(|message| message_out(message)).collect(),
            members_seq: members_seq.0,
            from: from.iter().map(|device| device.map_or_else(Bytes::new, |device| id_out!(device))).collect(),
        }),
        Task::Offline { conversation, seq, message, sender, users } => pb::task::Task::Offline(pb::Offline {
            conversation: id_out!(conversation),
            seq: seq.0,
            message: id_out!(message),
            sender: id_out!(sender),
            users: users.iter().map(|user| id_out!(user)).collect(),
        }),
    };
    pb::Task { task: Some(task) }
}

fn task_in(task: pb::Task) -> Result<Task> {
    Ok(match task.task.ok_or_else(|| poison("an empty task"))? {
        pb::task::Task::Fanout(fanout) => {
            if fanout.messages.is_empty() || fanout.from.len() != fanout.messages.len() {
                return Err(poison("a fanout whose senders do not match its messages"));
            }
            let device = |bytes: Bytes| if bytes.is_empty() { Ok(None) } else { DeviceId::from_slice(&bytes).map(Some) };
            Task::Fanout {
                messages: fanout.messages.into_iter().map(|message| message_in(message).map(Arc::new)).collect::<Result<_>>()?,
                members_seq: Seq(fanout.members_seq),
                from: fanout.from.into_iter().map(device).collect::<Result<_>>()?,
            }
        }
        pb::task::Task::Offline(offline) => Task::Offline {
            conversation: ConversationId::from_slice(&offline.conversation)?,
            seq: Seq(offline.seq),
            message: MessageId::from_slice(&offline.message)?,
            sender: UserId::from_slice(&offline.sender)?,
            users: offline.users.iter().map(|user| UserId::from_slice(user)).collect::<Result<_>>()?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: i64) -> Arc<Message> {
        Arc::new(Message {
            conversation: ConversationId::from_bytes([1; 16]),
            seq: Seq(seq),
            id: MessageId::from_bytes([2; 16]),
            sender: UserId::from_bytes([3; 16]),
            client_msg_id: ClientMsgId::from_bytes([4; 16]),
            body: Body { kind: MessageKind::Image, content: r#"{"url":"https://example.org/ä.png"}"#.into() },
            reply_to: (seq > 1).then_some(Seq(1)),
            created_at: Timestamp(5),
        })
    }

    fn records() -> Vec<Record> {
        let draft = Draft {
            conversation: ConversationId::from_bytes([1; 16]),
            id: MessageId::from_bytes([2; 16]),
            sender: UserId::from_bytes([3; 16]),
            client_msg_id: ClientMsgId::from_bytes([4; 16]),
            body: Body { kind: MessageKind::Text, content: "hello".into() },
            payload_hash: PayloadHash { key_id: 0, hash: [0; 32] },
            reply_to: Some(Seq(7)),
            created_at: Timestamp(8),
        };
        let gateway = "gateway-1".parse().unwrap();
        let origin = Origin { gateway, connection: u64::MAX, request: 9, device: DeviceId::from_bytes([5; 16]) };
        let refusal = Refusal { code: Code::Silenced, message: "quiet".into(), retry_after_ms: Some(3) };
        let stored = Stored {
            conversation: ConversationId::from_bytes([1; 16]),
            seq: Seq(2),
            message: MessageId::from_bytes([2; 16]),
            created_at: Timestamp(1),
        };
        let marks = Payload::Marks {
            conversation: ConversationId::from_bytes([1; 16]),
            user: UserId::from_bytes([3; 16]),
            read_seq: Seq(3),
            delivered_seq: Seq(4),
        };
        vec![
            Record::Upstream(Arc::new(Upstream { draft, origin })),
            Record::Downstream(Arc::new(Downstream {
                acks: vec![Ack { connection: 1, request: 2, outcome: Ok(stored) }, Ack { connection: 1, request: 3, outcome: Err(refusal) }],
                deliveries: vec![Delivery {
                    targets: vec![Target { connection: 1 << 60, epoch: 12 }],
                    payloads: vec![Payload::Message(message(1)), marks, Payload::Heads(vec![(ConversationId::from_bytes([1; 16]), Seq(5))])],
                }],
                signals: vec![Signal::Revoked { user: UserId::from_bytes([3; 16]), device: DeviceId::from_bytes([5; 16]), session_epoch: 4 }],
            })),
            Record::Task(Arc::new(Task::Fanout {
                messages: vec![message(1), message(2)],
                members_seq: Seq(1),
                from: vec![None, Some(DeviceId::from_bytes([5; 16]))],
            })),
            Record::Task(Arc::new(Task::Offline {
                conversation: ConversationId::from_bytes([1; 16]),
                seq: Seq(2),
                message: MessageId::from_bytes([2; 16]),
                sender: UserId::from_bytes([3; 16]),
                users: vec![UserId::from_bytes([6; 16])],
            })),
        ]
    }

    #[test]
    fn ids_cut_from_one_block_stay_what_they_are() {
        let ids: Vec<[u8; 16]> = (0..2_000_u128).map(u128::to_be_bytes).collect();
        let cut: Vec<Bytes> = ids.iter().map(id_bytes).collect();
        assert!(cut.iter().zip(&ids).all(|(cut, id)| cut == id.as_slice()));
        drop(cut);
        assert_eq!(id_bytes(&[7; 16]), [7; 16].as_slice());
    }

    #[test]
    fn every_record_comes_back_as_it_was() {
        for record in records() {
            assert_eq!(decode(encode(&record)).unwrap(), record);
        }
    }

    #[test]
    fn what_is_damaged_or_of_another_version_is_refused_and_never_panics() {
        let other = pb::Record { version: 2, body: None }.encode_to_vec();
        assert_eq!(decode(other.into()).unwrap_err().code, Code::InvalidRequest);
        for record in records() {
            let bytes = encode(&record);
            for cut in 0..bytes.len() {
                let _ = decode(bytes.slice(..cut));
                let mut flipped = bytes.to_vec();
                flipped[cut] ^= 0x55;
                let _ = decode(flipped.into());
            }
        }
        let short = pb::Record {
            version: VERSION,
            body: Some(pb::record::Body::Task(pb::Task { task: Some(pb::task::Task::Offline(pb::Offline::default())) })),
        };
        assert_eq!(decode(short.encode_to_vec().into()).unwrap_err().code, Code::InvalidField);
    }

    /// What a record tells, item by item: who is told, then what.
    fn told(record: &Record) -> Vec<String> {
        let mut told = Vec::new();
        match record {
            Record::Upstream(upstream) => told.push(format!("{upstream:?}")),
            Record::Downstream(downstream) => {
                told.extend(downstream.acks.iter().map(|ack| format!("{ack:?}")));
                for delivery in &downstream.deliveries {
                    for payload in &delivery.payloads {
                        match payload {
                            Payload::Heads(heads) => {
                                told.extend(delivery.targets.iter().flat_map(|to| heads.iter().map(move |head| format!("{to:?} {head:?}"))));
                            }
                            other => told.extend(delivery.targets.iter().map(|to| format!("{to:?} {other:?}"))),
                        }
                    }
                }
                told.extend(downstream.signals.iter().map(|signal| format!("{signal:?}")));
            }
            Record::Task(task) => match &**task {
                Task::Fanout { messages, members_seq, from } => {
                    assert_eq!(messages.len(), from.len());
                    told.extend(messages.iter().zip(from).map(|(message, from)| format!("{message:?} {from:?} {members_seq:?}")));
                }
                Task::Offline { conversation, seq, message, sender, users } => {
                    told.extend(users.iter().map(|user| format!("{conversation:?} {seq:?} {message:?} {sender:?} {user:?}")));
                }
            },
        }
        told
    }

    fn long(seq: i64, bytes: usize) -> Arc<Message> {
        Arc::new(Message { body: Body { kind: MessageKind::Text, content: "x".repeat(bytes).into() }, ..(*message(seq)).clone() })
    }

    /// A number below `n`, from a fixed seed.
    fn dice(state: &mut u64, n: usize) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize % n
    }

    fn any_record(state: &mut u64) -> Record {
        let mut messages = |least: usize| (0..dice(state, 30) + least).map(|n| long(n as i64 + 1, dice(state, 400))).collect::<Vec<_>>();
        let Record::Downstream(pattern) = records().remove(1) else { panic!("not the second any more") };
        match messages(0).len() % 3 {
            0 => {
                let messages = messages(1);
                let from = messages.iter().map(|message| (message.seq.0 % 2 == 0).then(|| DeviceId::from_bytes([7; 16]))).collect();
                Record::Task(Arc::new(Task::Fanout { messages, members_seq: Seq(3), from }))
            }
            1 => {
                let users = messages(1).iter().map(|message| UserId::from_bytes([message.seq.0 as u8; 16])).collect();
                let (conversation, message, sender) =
                    (ConversationId::from_bytes([1; 16]), MessageId::from_bytes([2; 16]), UserId::from_bytes([3; 16]));
                Record::Task(Arc::new(Task::Offline { conversation, seq: Seq(2), message, sender, users }))
            }
            _ => {
                let deliveries = (0..messages(0).len() % 5).map(|_| Delivery {
                    targets: messages(1).iter().map(|message| Target { connection: message.seq.0 as u64, epoch: 1 }).collect(),
                    payloads: match messages(0) {
                        few if few.len() < 10 => few.into_iter().map(Payload::Message).collect(),
                        many => vec![Payload::Heads(many.iter().map(|message| (message.conversation, message.seq)).collect())],
                    },
                });
                let deliveries = deliveries.collect();
                let acks = (0..messages(0).len()).map(|n| Ack { request: n as u64, ..pattern.acks[n % 2].clone() }).collect();
                Record::Downstream(Arc::new(Downstream { acks, deliveries, signals: pattern.signals.clone() }))
            }
        }
    }

    #[test]
    fn what_is_too_large_is_told_in_parts_that_together_say_the_same() {
        let (mut state, mut split) = (7, 0);
        for _ in 0..600 {
            let record = any_record(&mut state);
            for max in [700, 2_000, 20_000] {
                let parts = encode_within(&record, max).unwrap();
                assert!(parts.iter().all(|part| part.len() <= max));
                split += usize::from(parts.len() > 1);
                let parts: Vec<Record> = parts.into_iter().map(|part| decode(part).unwrap()).collect();
                if let [whole] = &parts[..] {
                    assert_eq!(*whole, record);
                }
                let (mut again, mut once) = (parts.iter().flat_map(told).collect::<Vec<_>>(), told(&record));
                // Who is told first does not matter, but what each of them is told in which order does; and for records that tell
                // no connection the order is the whole's.
                if matches!(record, Record::Downstream(_)) {
                    let target = |line: &String| line.split_once(" }").map_or_else(String::new, |(to, _)| to.to_owned());
                    again.sort_by_key(target);
                    once.sort_by_key(target);
                }
                assert_eq!(again, once);
            }
        }
        assert!(split > 600, "only {split} records were split");
    }

    #[test]
    fn a_batch_of_the_largest_messages_fits_into_records_that_a_broker_takes() {
        let messages: Vec<_> = (1..=1000).map(|seq| long(seq, 64 * 1024)).collect();
        let from = vec![None; messages.len()];
        let whole = Record::Task(Arc::new(Task::Fanout { messages, members_seq: Seq(1), from }));
        let parts = encode_within(&whole, 1_000_000).unwrap();
        assert!(parts.len() >= 65 && parts.len() <= 130, "{} parts", parts.len());
        let parts: Vec<Record> = parts.into_iter().map(|part| decode(part).unwrap()).collect();
        assert_eq!(parts.iter().flat_map(told).count(), 1000);
    }

    #[test]
    fn an_item_that_fits_into_no_record_is_refused() {
        let whole = Record::Task(Arc::new(Task::Fanout { messages: vec![long(1, 10), long(2, 500)], members_seq: Seq(1), from: vec![None; 2] }));
        assert_eq!(encode_within(&whole, 400).unwrap_err().code, Code::TooLarge);
        assert_eq!(encode_within(&records()[0], 20).unwrap_err().code, Code::TooLarge);
    }
}
