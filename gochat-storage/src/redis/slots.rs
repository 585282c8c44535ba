//! Which server of a Cluster has which keys.

use std::sync::Arc;

use redis::Value;

use super::node::Node;

const SLOTS: usize = 16_384;
const NOWHERE: u16 = u16::MAX;

/// The map of the slots as some server told it.
#[derive(Debug)]
pub(super) struct Slots {
    nodes: Vec<Arc<Node>>,
    /// For each slot the number of its node.
    owners: Vec<u16>,
}

/// Slots from the first to the last number are at this host and port.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub first: usize,
    pub last: usize,
    pub host: String,
    pub port: u16,
}

impl Slots {
    pub fn unknown() -> Self {
        Slots { nodes: Vec::new(), owners: vec![NOWHERE; SLOTS] }
    }

    pub fn of(ranges: &[Range], mut find: impl FnMut(&str, u16) -> Option<Arc<Node>>) -> Self {
        let mut slots = Slots::unknown();
        for range in ranges {
            let known = slots.nodes.iter().position(|node| node.is_at(&range.host, range.port));
            let number = match known {
                Some(number) => number,
                None => {
                    let Some(node) = find(&range.host, range.port) else { continue };
                    slots.nodes.push(node);
                    slots.nodes.len() - 1
                }
            };
            if let (Ok(number), Some(owners)) = (u16::try_from(number), slots.owners.get_mut(range.first..=range.last)) {
                owners.fill(number);
            }
        }
        slots
    }

    pub fn node(&self, slot: u16) -> Option<&Arc<Node>> {
        self.nodes.get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    pub fn complete(&self) -> bool {
        !self.owners.contains(&NOWHERE)
    }
}

/// The answer to `CLUSTER SLOTS`. A host without a name is the one that was asked.
pub(super) fn parse(answer: &Value, asked: &str) -> Option<Vec<Range>> {
    let Value::Array(ranges) = answer else { return None };
    ranges
        .iter()
        .map(|range| {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(main), ..] = range.as_slice() else { return None };
            let [host, Value::Int(port), ..] = main.as_slice() else { return None };
            let host = match host {
                Value::BulkString(name) => std::str::from_utf8(name).ok()?,
                Value::SimpleString(name) => name,
                _ => "",
            };
            let host = if host.is_empty() || host == "?" { asked } else { host };
            Some(Range {
                first: usize::try_from(*first).ok()?,
                last: usize::try_from(*last).ok()?,
                host: host.to_owned(),
                port: u16::try_from(*port).ok()?,
            })
        })
        .collect()
}

/// What each value of the upper byte does to the rest: a page of a large group has a thousand keys of sixty bytes.
const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The slot of a key: CRC-16 (XMODEM) of what stands between the first braces, or of all of it.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|byte| *byte == b'}').filter(|close| *close > 0).map(|close| &rest[..close])
    });
    let mut crc: u16 = 0;
    for byte in tag.unwrap_or(key) {
        crc = (crc << 8) ^ CRC[usize::from((crc >> 8) as u8 ^ byte)];
    }
    crc % SLOTS as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // From CLUSTER KEYSLOT.
        assert_eq!(slot_of(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"a{foo}b{bar}"), 12_182);
        assert_eq!(slot_of(b"{}foo"), slot_of(b"{}foo"));
        assert_ne!(slot_of(b"{}foo"), slot_of(b"foo"));
    }

    #[test]
    fn a_host_without_a_name_is_the_one_that_was_asked() {
        let node = |host: Value| Value::Array(vec![host, Value::Int(7001), Value::BulkString(b"id".to_vec())]);
        let range = |first, last, host| Value::Array(vec![Value::Int(first), Value::Int(last), node(host)]);
        let answer = Value::Array(vec![range(0, 5, Value::Nil), range(6, 9, Value::BulkString(b"10.0.0.2".to_vec()))]);
        let hosts: Vec<String> = parse(&answer, "10.0.0.1").unwrap().into_iter().map(|range| range.host).collect();
        assert_eq!(hosts, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(parse(&Value::Nil, "x"), None);
    }
}
