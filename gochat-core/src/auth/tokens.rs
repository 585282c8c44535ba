use std::fmt;

use aes_gcm::{
    Aes256Gcm,
    aead::{Aead, Nonce},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, jwk::Jwk};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Secret;
use crate::{
    error::{Code, Error, Result},
    ids::{DeviceId, UserId},
    model::Caller,
    ports::Identity,
    time::{IdGenerator, Timestamp},
};

/// Type of our access tokens (RFC 9068).
const ACCESS_TYPE: &str = "at+jwt";
/// Seconds by which clocks may differ.
const LEEWAY: i64 = 60;
/// Bytes of a token at most; a longer one is not looked at.
const TOKEN_BYTES_MAX: usize = 2048;
/// PKCS #8 of an Ed25519 key before its 32 bytes (RFC 8410).
const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What tokens say and how long they live.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// Who gives them out.
    pub issuer: String,
    /// Whom they are for.
    pub audience: String,
    /// Life of an access token in seconds.
    pub access_seconds: u64,
    /// Life of a refresh token in seconds.
    pub refresh_seconds: u64,
}

impl Default for TokenSettings {
    fn default() -> Self {
        TokenSettings { issuer: "gochat".into(), audience: "gochat".into(), access_seconds: 7_200, refresh_seconds: 30 * 86_400 }
    }
}

/// Gives out and verifies access tokens: JWT, EdDSA (Ed25519) and nothing else. Several keys at once: the first signs, all
/// verify, so that a key can be changed without anybody noticing.
pub struct Tokens {
    settings: TokenSettings,
    signing: EncodingKey,
    header: Header,
    verifying: Vec<(String, DecodingKey)>,
    validation: Validation,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("settings", &self.settings).field("keys", &self.verifying.len()).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    device: DeviceId,
    epoch: i64,
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl Tokens {
    /// Tokens under these Ed25519 seeds; the first one signs.
    pub fn new(settings: TokenSettings, seeds: &[Secret<[u8; 32]>]) -> Result<Self> {
        let mut verifying = Vec::with_capacity(seeds.len());
        let mut signing = None;
        for seed in seeds {
            let key = EncodingKey::from_ed_der(&[PKCS8_ED25519.as_slice(), seed.reveal()].concat());
            let public = Jwk::from_encoding_key(&key, Algorithm::EdDSA).map_err(Error::internal)?;
            let decoding = DecodingKey::from_jwk(&public).map_err(Error::internal)?;
            // The key's id is the beginning of its public half's hash: the same in every process.
            let kid = URL_SAFE_NO_PAD.encode(&Sha256::digest(serde_json::to_vec(&public).map_err(Error::internal)?)[..9]);
            if signing.is_none() {
                signing = Some((key, kid.clone()));
            }
            verifying.push((kid, decoding));
        }
        let (signing, kid) = signing.ok_or_else(|| Error::internal("no key to sign tokens with"))?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(ACCESS_TYPE.into());
        header.kid = Some(kid);
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[&settings.audience]);
        validation.set_issuer(&[&settings.issuer]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        // Times are judged below, by the clock that was passed in.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Ok(Tokens { settings, signing, header, verifying, validation })
    }

    /// Life of an access token in seconds.
    pub fn access_seconds(&self) -> u64 {
        self.settings.access_seconds
    }

    /// When a refresh token that is given out now ends.
    pub fn refresh_expires_at(&self, now: Timestamp) -> Timestamp {
        now.plus(std::time::Duration::from_secs(self.settings.refresh_seconds))
    }

    /// An access token of this session.
    pub fn issue(&self, caller: &Caller, now: Timestamp) -> Result<String> {
        let now = now.seconds();
        let claims = Claims {
            iss: self.settings.issuer.clone(),
            aud: self.settings.audience.clone(),
            sub: caller.user,
            device: caller.device,
            epoch: caller.session_epoch,
            iat: now,
            nbf: now,
            exp: now + i64::try_from(self.settings.access_seconds).unwrap_or(i64::MAX / 2),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.signing).map_err(Error::internal)
    }

    /// Who the token was given to. `UNAUTHENTICATED` for whatever is not exactly a token of ours, `TOKEN_EXPIRED` for one
    /// whose time is over.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Identity> {
        let refused = || Error::from(Code::Unauthenticated);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(refused());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| refused())?;
        // The header names a key of ours and its type; it chooses neither algorithm nor key material.
        if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(ACCESS_TYPE) || header.crit.is_some() {
            return Err(refused());
        }
        let kid = header.kid.ok_or_else(refused)?;
        let (_, key) = self.verifying.iter().find(|(known, _)| *known == kid).ok_or_else(refused)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(|_| refused())?.claims;
        if claims.nbf > now.seconds() + LEEWAY || claims.iat > now.seconds() + LEEWAY {
            return Err(refused());
        }
        if claims.exp + LEEWAY <= now.seconds() {
            return Err(Code::TokenExpired.into());
        }
        Ok(Identity {
            caller: Caller { user: claims.sub, device: claims.device, session_epoch: claims.epoch },
            expires_at: Timestamp((claims.exp + LEEWAY).saturating_mul(1000)),
        })
    }
}

/// An opaque refresh token: 256 random bits. Only its SHA-256 is stored.
pub struct RefreshToken(Secret<[u8; 32]>);

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(***)")
    }
}

impl RefreshToken {
    /// A new token.
    pub fn generate(ids: &dyn IdGenerator) -> Self {
        let mut bytes = [0; 32];
        ids.random(&mut bytes);
        RefreshToken(Secret::new(bytes))
    }

    /// The token as its holder shows it.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(RefreshToken(Secret::new(bytes.try_into().ok()?)))
    }

    /// The token as its holder keeps it.
    pub fn reveal(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.reveal())
    }

    /// What is stored of it.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.reveal()).into()
    }

    /// Seals the successor under a key that only the holder of this token has: the table alone reveals neither.
    pub fn seal(&self, successor: &RefreshToken) -> Result<Vec<u8>> {
        // The key is used for this one text, so the nonce need not vary.
        let cipher = self.sealer();
        cipher.encrypt(&Nonce::<Aes256Gcm>::default(), successor.0.reveal().as_slice()).map_err(|_| Error::internal("sealing failed"))
    }

    /// Opens what [`seal`](Self::seal) made with this token.
    pub fn open(&self, sealed: &[u8]) -> Result<RefreshToken> {
        let opened = self.sealer().decrypt(&Nonce::<Aes256Gcm>::default(), sealed).map_err(|_| Error::internal("a sealed successor is damaged"))?;
        let bytes = opened.try_into().map_err(|_| Error::internal("a sealed successor has a wrong length"))?;
        Ok(RefreshToken(Secret::new(bytes)))
    }

    fn sealer(&self) -> Aes256Gcm {
        let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(self.0.reveal()) else { unreachable!("HMAC takes a key of any length") };
        mac.update(b"gochat refresh successor 1");
        Aes256Gcm::new(&mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::CountingIds;
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn tokens() -> Tokens {
        Tokens::new(TokenSettings::default(), &[Secret::new([1; 32]), Secret::new([2; 32])]).unwrap()
    }

    fn caller() -> Caller {
        Caller { user: UserId::from_bytes([3; 16]), device: DeviceId::from_bytes([4; 16]), session_epoch: 5 }
    }

    #[test]
    fn a_token_of_any_key_in_the_ring_tells_its_caller() {
        let token = tokens().issue(&caller(), NOW).unwrap();
        assert_eq!(tokens().verify(&token, NOW).unwrap().caller, caller());
        let rotated = Tokens::new(TokenSettings::default(), &[Secret::new([9; 32]), Secret::new([1; 32])]).unwrap();
        assert_eq!(rotated.verify(&token, NOW).unwrap().caller, caller());
    }

    #[test]
    fn a_token_ends_after_its_life_and_a_minute() {
        let token = tokens().issue(&caller(), NOW).unwrap();
        let at = |seconds: i64| tokens().verify(&token, Timestamp(NOW.0 + seconds * 1000));
        assert!(at(7_200 + 59).is_ok());
        assert_eq!(at(7_200 + 60).unwrap_err().code, Code::TokenExpired);
        assert_eq!(at(-61).unwrap_err().code, Code::Unauthenticated);
    }

    /// Every way that we know to forge a token is refused.
    #[test]
    fn forged_tokens_are_refused() {
        let tokens = tokens();
        let good = tokens.issue(&caller(), NOW).unwrap();
        let (header, rest) = good.split_once('.').unwrap();
        let (claims, signature) = rest.split_once('.').unwrap();
        let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let (header, claims) = (json(header), json(claims));
        let edit = |value: &Value, field: &str, new: Value| {
            let mut value = value.clone();
            value[field] = new;
            part(&value)
        };
        let same = |text: String| format!("{text}.{}.{signature}", part(&claims));
        let other = |claims: String| format!("{}.{claims}.{signature}", part(&header));
        let signed = |header: &Value, claims: &Value, seed: u8| {
            let key = EncodingKey::from_ed_der(&[PKCS8_ED25519.as_slice(), &[seed; 32]].concat());
            let message = format!("{}.{}", part(header), part(claims));
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA).unwrap();
            format!("{message}.{signature}")
        };
        let with = |field: &str, value: Value| {
            let mut changed = claims.clone();
            changed[field] = value;
            changed
        };
        let hs256 = {
            let message = format!("{}.{}", edit(&header, "alg", json!("HS256")), part(&claims));
            let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(b"public key").unwrap();
            mac.update(message.as_bytes());
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
        };
        let forged = [
            String::new(),
            "a".into(),
            "a.b.c".into(),
            "..".into(),
            format!("{}.{}.", part(&header), part(&claims)),
            format!("{}.{}.", edit(&header, "alg", json!("none")), part(&claims)),
            format!("{}.{}", part(&header), part(&claims)),
            same(edit(&header, "alg", json!("RS256"))),
            same(edit(&header, "kid", json!("../../etc/passwd"))),
            same(edit(&header, "kid", Value::Null)),
            same(edit(&header, "jku", json!("https://evil.example/keys"))),
            same(edit(&header, "typ", json!("JWT"))),
            other(edit(&claims, "sub", json!(UserId::from_bytes([8; 16])))),
            other(edit(&claims, "exp", json!(i64::MAX))),
            other(edit(&claims, "epoch", json!(6))),
            hs256,
            signed(&header, &claims, 7),
            signed(&header, &with("aud", json!("another")), 1),
            signed(&header, &with("iss", json!("another")), 1),
            signed(&header, &with("sub", json!("not a uuid")), 1),
            signed(&header, &with("exp", Value::Null), 1),
            signed(&header, &with("nbf", json!(NOW.seconds() + 3600)), 1),
            signed(&header, &with("iat", json!(NOW.seconds() + 3600)), 1),
            signed(&json!({"alg": "EdDSA", "typ": "refresh+jwt", "kid": header["kid"]}), &claims, 1),
            signed(&json!({"alg": "EdDSA", "typ": "at+jwt", "kid": header["kid"], "crit": ["x"]}), &claims, 1),
            format!("{good}x"),
            format!(" {good}"),
            "x".repeat(TOKEN_BYTES_MAX + 1),
        ];
        assert!(forged.len() >= 25);
        for token in forged {
            let refused = tokens.verify(&token, NOW).map(|identity| identity.caller);
            assert_eq!(refused.map_err(|error| error.code), Err(Code::Unauthenticated), "{token}");
        }
        assert!(tokens.verify(&good, NOW).is_ok());
    }

    #[test]
    fn a_successor_opens_only_with_the_token_that_sealed_it() {
        let ids = CountingIds::from(1);
        let (old, new) = (RefreshToken::generate(&ids), RefreshToken::generate(&ids));
        let sealed = old.seal(&new).unwrap();
        assert_eq!(old.open(&sealed).unwrap().reveal(), new.reveal());
        assert!(new.open(&sealed).is_err());
        assert_eq!(RefreshToken::parse(&old.reveal()).unwrap().hash(), old.hash());
        assert!(RefreshToken::parse("short").is_none());
    }
}
