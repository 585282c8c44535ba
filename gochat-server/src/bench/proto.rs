//! `gochat.v1.proto`, as far as the load speaks it: written and scanned by hand, because only a few fields matter.

use uuid::Uuid;

use super::wire::{self, Stamp, Told};

/// Wire types of protobuf.
const VARINT: u64 = 0;
const BYTES: u64 = 2;

pub fn write_auth(out: &mut Vec<u8>, id: u64, token: &str) {
    request(out, id, 2, |auth| bytes_field(auth, 1, token.as_bytes()));
}

pub fn write_send(out: &mut Vec<u8>, id: u64, conversation: Uuid, message: Uuid, stamp: Stamp, bytes: usize) {
    request(out, id, 3, |send| {
        bytes_field(send, 1, conversation.as_bytes());
        bytes_field(send, 2, message.as_bytes());
        nested(send, 4, |content| wire::write_stamped(content, stamp, bytes));
    });
}

pub fn write_history(out: &mut Vec<u8>, id: u64, conversation: Uuid, limit: u32) {
    request(out, id, 5, |history| {
        bytes_field(history, 1, conversation.as_bytes());
        number_field(history, 4, u64::from(limit));
    });
}

pub fn write_sync(out: &mut Vec<u8>, id: u64, conversation: Uuid) {
    request(out, id, 4, |sync| nested(sync, 1, |position| bytes_field(position, 1, conversation.as_bytes())));
}

pub fn read(payload: &[u8]) -> Told<'_> {
    let mut id = 0;
    for field in Fields(payload) {
        match field {
            (1, Value::Number(number)) => id = number,
            (3, Value::Bytes(ack)) => return Told::Ack { id, seq: number(ack, 2) },
            (4, Value::Bytes(error)) => return Told::Error { id, code: bytes(error, 1) },
            (5, Value::Bytes(message)) => return read_message(message),
            (8, Value::Bytes(_)) => return Told::Resync,
            (2 | 9..=13, Value::Bytes(_)) => return Told::Answer { id },
            _ => {}
        }
    }
    Told::Other
}

fn read_message(message: &[u8]) -> Told<'_> {
    match wire::stamp(bytes(message, 7)) {
        Some(stamp) => Told::Message { seq: number(message, 2), stamp },
        None => Told::Other,
    }
}

fn number(message: &[u8], wanted: u64) -> i64 {
    Fields(message).find_map(|field| matches!(field, (number, Value::Number(_)) if number == wanted).then_some(field.1)).map_or(
        0,
        |value| match value {
            Value::Number(number) => number as i64,
            Value::Bytes(_) => 0,
        },
    )
}

fn bytes(message: &[u8], wanted: u64) -> &[u8] {
    Fields(message).find(|(number, _)| *number == wanted).map_or(&[], |(_, value)| match value {
        Value::Bytes(bytes) => bytes,
        Value::Number(_) => &[],
    })
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers; ends at the first that it cannot read.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = varint(&mut self.0)?;
        let value = match key & 7 {
            VARINT => Value::Number(varint(&mut self.0)?),
            BYTES => {
                let length = usize::try_from(varint(&mut self.0)?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number_field(out: &mut Vec<u8>, number: u64, value: u64) {
    put(out, number << 3 | VARINT);
    put(out, value);
}

fn bytes_field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put(out, number << 3 | BYTES);
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A field whose length is known only when it is written: three bytes are kept for it, which hold up to 2 MiB.
fn nested(out: &mut Vec<u8>, number: u64, write: impl FnOnce(&mut Vec<u8>)) {
    put(out, number << 3 | BYTES);
    let at = out.len();
    out.extend_from_slice(&[0; 3]);
    write(out);
    let length = out.len() - at - 3;
    out[at..at + 3].copy_from_slice(&[length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8 & 0x7f]);
}

fn request(out: &mut Vec<u8>, id: u64, number: u64, write: impl FnOnce(&mut Vec<u8>)) {
    number_field(out, 1, id);
    nested(out, number, write);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STAMP: Stamp = Stamp { sent: Duration::from_secs(1), sender: 2, number: 3 };

    #[test]
    fn a_request_can_be_read_field_by_field() {
        let (conversation, message) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let mut out = Vec::new();
        write_send(&mut out, 300, conversation, message, STAMP, 200);
        assert_eq!(number(&out, 1), 300);
        let send = bytes(&out, 3);
        assert_eq!((bytes(send, 1), bytes(send, 2)), (&conversation.as_bytes()[..], &message.as_bytes()[..]));
        assert_eq!((bytes(send, 4).len(), wire::stamp(bytes(send, 4))), (200, Some(STAMP)));
    }

    #[test]
    fn what_is_told_is_understood() {
        let mut message = Vec::new();
        nested(&mut message, 5, |message| {
            bytes_field(message, 1, &[1; 16]);
            number_field(message, 2, 42);
            nested(message, 7, |content| wire::write_stamped(content, STAMP, 128));
        });
        assert_eq!(read(&message), Told::Message { seq: 42, stamp: STAMP });
        let answer = |field: u64, write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            request(&mut out, 7, field, write);
            out
        };
        assert_eq!(read(&answer(3, &|ack| number_field(ack, 2, 9))), Told::Ack { id: 7, seq: 9 });
        assert_eq!(read(&answer(4, &|error| bytes_field(error, 1, b"OVERLOADED"))), Told::Error { id: 7, code: b"OVERLOADED" });
        assert_eq!(read(&answer(10, &|_| ())), Told::Answer { id: 7 });
        let mut resync = Vec::new();
        nested(&mut resync, 8, |_| ());
        assert_eq!(read(&resync), Told::Resync);
        assert_eq!(read(&[0x2a, 0xff]), Told::Other);
    }
}
