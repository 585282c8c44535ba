use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Secret;
use crate::{
    ids::Seq,
    model::{Body, PayloadHash},
};

/// Keys the payload hashes that tell a repeated message from a conflict (decision 32). A plain hash of a short text could
/// be guessed from the database; a keyed one cannot.
#[derive(Clone, Debug)]
pub struct PayloadKey {
    id: i32,
    key: Secret<[u8; 32]>,
}

impl PayloadKey {
    /// The key with this id. Another key gets another id: then bodies, not hashes, are compared.
    pub fn new(id: i32, key: [u8; 32]) -> Self {
        PayloadKey { id, key: Secret::new(key) }
    }

    /// HMAC-SHA256 over kind, answer and content, each of fixed length but the last.
    pub fn hash(&self, body: &Body, reply_to: Option<Seq>) -> PayloadHash {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.reveal()) else { unreachable!("HMAC takes a key of any length") };
        mac.update(b"gochat payload 1\0");
        mac.update(&(body.kind as i32).to_be_bytes());
        mac.update(&reply_to.unwrap_or_default().0.to_be_bytes());
        mac.update(body.content.as_bytes());
        PayloadHash { key_id: self.id, hash: mac.finalize().into_bytes().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MessageKind;

    #[test]
    fn kind_answer_content_and_key_all_count() {
        let text = |content: &'static str| Body { kind: MessageKind::Text, content: content.into() };
        let key = PayloadKey::new(1, [7; 32]);
        let hash = key.hash(&text("a"), None);
        assert_eq!(hash, key.hash(&text("a"), None));
        assert_ne!(hash, key.hash(&text("b"), None));
        assert_ne!(hash, key.hash(&text("a"), Some(Seq(1))));
        assert_ne!(hash, key.hash(&Body { kind: MessageKind::Custom, content: "a".into() }, None));
        assert_ne!(hash.hash, PayloadKey::new(1, [8; 32]).hash(&text("a"), None).hash);
    }
}
