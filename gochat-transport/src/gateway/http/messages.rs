//! The log of a conversation: reading, sending, marks, sync.

use std::{collections::HashSet, fmt};

use axum::extract::State;
use gochat_core::{
    error::{Code, Error},
    ids::{ConversationId, Seq},
    limits::SYNC_CONVERSATIONS_MAX,
    model::Mark,
    ports::{HistoryQuery, SendRequest, SyncRequest},
};
use http::StatusCode;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::{
    Shared,
    extract::{Answer, Id, JsonBody, Params, RawBody, Signed, invalid, json, limit, ok},
    route::{LIMIT, Parameter, Route},
};
use crate::gateway::wire::{AckJson, HistoryJson, MemberJson, MessageInput, SyncedJson};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/conversations/{id}/messages", history)
            .summary("A page of the log, ascending; the newest entries unless `after` or `before` is given")
            .takes(Parameter::query("after", "SeqParameter", "The oldest entries above this seq."))
            .takes(Parameter::query("before", "SeqParameter", "The newest entries below this seq. Not together with `after`."))
            .takes(LIMIT)
            .answers(200, "Entries of the log", "History")
            .refuses(&[Code::ConversationNotFound]),
        Route::post("/conversations/{id}/messages", send)
            .summary("Sends a message; sending it again with the same client_msg_id answers as the first time")
            .body("MessageInput")
            .answers(201, "The message is stored", "Ack")
            .refuses(&[
                Code::ConversationNotFound,
                Code::NotAMember,
                Code::Silenced,
                Code::RefusedByHook,
                Code::Dissolved,
                Code::MessageNotFound,
                Code::IdempotencyConflict,
                Code::RateLimited,
            ]),
        Route::post("/conversations/{id}/marks", mark)
            .summary("Raises the own marks; they never fall, and never rise above the log's end")
            .body("MarkInput")
            .answers(200, "The own membership", "Member")
            .refuses(&[Code::ConversationNotFound, Code::NotAMember]),
        Route::post("/sync", sync).summary("What a device lacks of many conversations").body("SyncInput").answers(200, "What it lacks", "Synced"),
    ]
}

async fn history(State(http): State<Shared>, Signed(caller): Signed, Id(conversation): Id<ConversationId>, params: Params) -> Answer {
    let (after, before, limit) = (params.seq("after")?, params.seq("before")?, params.limit()?);
    if after.is_some() && before.is_some() {
        return Err(invalid("after", "and before exclude each other").into());
    }
    ok(&HistoryJson::from(&http.api.history(&caller, &HistoryQuery { conversation, after, before, limit }).await?))
}

async fn send(State(http): State<Shared>, Signed(caller): Signed, Id(conversation): Id<ConversationId>, body: RawBody) -> Answer {
    let input: MessageInput<'_> = body.parse()?;
    let request = SendRequest { conversation, client_msg_id: input.client_msg_id, body: input.body()?, reply_to: input.reply_to()? };
    json(StatusCode::CREATED, &AckJson::from(&http.sender.send(&caller, request).await?))
}

#[derive(Deserialize)]
struct Marks {
    #[serde(default)]
    read_seq: Option<Seq>,
    #[serde(default)]
    delivered_seq: Option<Seq>,
}

async fn mark(State(http): State<Shared>, Signed(caller): Signed, Id(conversation): Id<ConversationId>, JsonBody(marks): JsonBody<Marks>) -> Answer {
    let (read_seq, delivered_seq) = (marks.read_seq.unwrap_or_default(), marks.delivered_seq.unwrap_or_default());
    if read_seq < Seq::ZERO || delivered_seq < Seq::ZERO {
        return Err(invalid("a seq", "is 0 or more").into());
    }
    let mark = Mark { conversation, user: caller.user, read_seq, delivered_seq };
    let member = http.api.mark(&caller, &[mark]).await?.pop().ok_or_else(|| Error::internal("no outcome of a mark"))??;
    ok(&MemberJson::from(&member))
}

#[derive(Deserialize)]
struct Sync {
    have: Have,
    #[serde(default)]
    limit: Option<i64>,
}

async fn sync(State(http): State<Shared>, Signed(caller): Signed, JsonBody(Sync { have: Have(have), limit: asked }): JsonBody<Sync>) -> Answer {
    if have.len() > SYNC_CONVERSATIONS_MAX {
        return Err(invalid("have", &format!("names more than {SYNC_CONVERSATIONS_MAX} conversations")).into());
    }
    if have.iter().any(|(_, seq)| *seq < Seq::ZERO) {
        return Err(invalid("a seq", "is 0 or more").into());
    }
    ok(&SyncedJson::from(&http.api.sync(&caller, &SyncRequest { have, limit: limit(asked)? }).await?))
}

/// For each conversation the seq that the device has: a JSON object whose keys are ids, each at most once.
struct Have(Vec<(ConversationId, Seq)>);

impl<'de> Deserialize<'de> for Have {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Have;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of conversation ids and seqs")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Have, A::Error> {
                let (mut pairs, mut seen) = (Vec::new(), HashSet::new());
                while let Some((id, seq)) = map.next_entry()? {
                    if !seen.insert(id) {
                        return Err(serde::de::Error::custom("duplicate field in have"));
                    }
                    pairs.push((id, seq));
                }
                Ok(Have(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
