//! `gochat.v1.json`, as far as the load speaks it.

use memchr::memmem;
use uuid::Uuid;

use super::wire::{self, Stamp, Told};

pub fn write_auth(out: &mut Vec<u8>, id: u64, token: &str) {
    put(out, &["{\"type\":\"auth\",\"id\":", &id.to_string(), ",\"token\":\"", token, "\"}"]);
}

pub fn write_send(out: &mut Vec<u8>, id: u64, conversation: Uuid, message: Uuid, stamp: Stamp, bytes: usize) {
    put(out, &["{\"type\":\"send\",\"id\":"]);
    number_into(out, id);
    put(out, &[",\"conversation_id\":\""]);
    uuid_into(out, conversation);
    put(out, &["\",\"client_msg_id\":\""]);
    uuid_into(out, message);
    put(out, &["\",\"text\":\""]);
    wire::write_stamped(out, stamp, bytes);
    put(out, &["\"}"]);
}

pub fn write_history(out: &mut Vec<u8>, id: u64, conversation: Uuid, limit: u32) {
    put(out, &["{\"type\":\"history\",\"id\":"]);
    number_into(out, id);
    put(out, &[",\"conversation_id\":\""]);
    uuid_into(out, conversation);
    put(out, &["\",\"limit\":"]);
    number_into(out, u64::from(limit));
    put(out, &["}"]);
}

pub fn write_sync(out: &mut Vec<u8>, id: u64, conversation: Uuid) {
    put(out, &["{\"type\":\"sync\",\"id\":"]);
    number_into(out, id);
    put(out, &[",\"have\":{\""]);
    uuid_into(out, conversation);
    put(out, &["\":0}}"]);
}

/// Reads a frame. The server writes `type` first and, in an answer, `id` near the beginning.
pub fn read(payload: &[u8]) -> Told<'_> {
    let Some(kind) = payload.strip_prefix(b"{\"type\":\"") else { return Told::Other };
    if kind.starts_with(b"message\"") {
        match (number(payload, b"\"seq\":"), after(payload, b"\"text\":\"").and_then(wire::stamp)) {
            (Some(seq), Some(stamp)) => Told::Message { seq: seq as i64, stamp },
            _ => Told::Other,
        }
    } else if kind.starts_with(b"ack\"") {
        match (number(payload, b"\"id\":"), number(payload, b"\"seq\":")) {
            (Some(id), Some(seq)) => Told::Ack { id, seq: seq as i64 },
            _ => Told::Other,
        }
    } else if kind.starts_with(b"error\"") {
        let code = after(payload, b"\"code\":\"").and_then(|rest| rest.split(|&byte| byte == b'"').next()).unwrap_or_default();
        Told::Error { id: number(payload, b"\"id\":").unwrap_or(0), code }
    } else if kind.starts_with(b"resync\"") {
        Told::Resync
    } else {
        number(&payload[..payload.len().min(64)], b"\"id\":").map_or(Told::Other, |id| Told::Answer { id })
    }
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

fn uuid_into(out: &mut Vec<u8>, id: Uuid) {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    out.extend_from_slice(id.as_hyphenated().encode_lower(&mut text).as_bytes());
}

fn number_into(out: &mut Vec<u8>, number: u64) {
    let begin = out.len();
    let mut rest = number;
    loop {
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out[begin..].reverse();
}

fn after<'a>(payload: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    memmem::find(payload, key).map(|at| &payload[at + key.len()..])
}

fn number(payload: &[u8], key: &[u8]) -> Option<u64> {
    let digits = after(payload, key)?.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |found, digit| Some(found.unwrap_or(0_u64).wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_written_is_json() {
        let (id, stamp) = (Uuid::from_u128(7), Stamp { sent: Duration::from_secs(1), sender: 2, number: 3 });
        let written = |write: &dyn Fn(&mut Vec<u8>)| -> Value {
            let mut out = Vec::new();
            write(&mut out);
            serde_json::from_slice(&out).unwrap()
        };
        let send = written(&|out| write_send(out, 120, id, id, stamp, 40));
        assert_eq!((&send["type"], &send["id"], &send["conversation_id"]), (&json!("send"), &json!(120), &json!(id.to_string())));
        assert_eq!(wire::stamp(send["text"].as_str().unwrap().as_bytes()), Some(stamp));
        assert_eq!(written(&|out| write_auth(out, 1, "t")), json!({"type": "auth", "id": 1, "token": "t"}));
        assert_eq!(
            written(&|out| write_history(out, 0, id, 50)),
            json!({"type": "history", "id": 0, "conversation_id": id.to_string(), "limit": 50})
        );
        assert_eq!(written(&|out| write_sync(out, 9, id)), json!({"type": "sync", "id": 9, "have": {id.to_string(): 0}}));
    }

    #[test]
    fn what_is_told_is_understood() {
        let stamp = Stamp { sent: Duration::from_secs(1), sender: 2, number: 3 };
        let mut payload = br#"{"type":"message","conversation_id":"c","seq":42,"message_id":"m","kind":"text","text":""#.to_vec();
        wire::write_stamped(&mut payload, stamp, 128);
        payload.extend_from_slice(br#"","created_at":1}"#);
        assert_eq!(read(&payload), Told::Message { seq: 42, stamp });
        assert_eq!(read(br#"{"type":"ack","id":7,"conversation_id":"c","seq":9}"#), Told::Ack { id: 7, seq: 9 });
        assert_eq!(read(br#"{"type":"error","id":8,"code":"OVERLOADED","message":"x"}"#), Told::Error { id: 8, code: b"OVERLOADED" });
        assert_eq!(read(br#"{"type":"history","id":4,"messages":[]}"#), Told::Answer { id: 4 });
        assert_eq!(read(br#"{"type":"resync"}"#), Told::Resync);
        assert_eq!(read(br#"{"type":"heads","heads":{}}"#), Told::Other);
    }
}
