//! Secrets: made at the first start, kept in a folder with mode 0600, refused if others can read them. Several roles may share
//! the folder and start at once: each secret appears whole, and once.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gochat_core::{auth::Secret, time::IdGenerator};

/// What a server keeps secret.
#[derive(Debug)]
pub struct Secrets {
    /// Ed25519 seed of access tokens.
    pub token_seed: Secret<[u8; 32]>,
    /// Key of the payload hashes.
    pub payload_key: Secret<[u8; 32]>,
    /// Token of the admin listener.
    pub admin_token: Secret<String>,
}

/// Reads the secrets in a folder, making those that are missing.
pub fn load(folder: &Path, ids: &dyn IdGenerator) -> io::Result<Secrets> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    Ok(Secrets {
        token_seed: Secret::new(key(&folder.join("token-key"), ids)?),
        payload_key: Secret::new(key(&folder.join("payload-key"), ids)?),
        admin_token: Secret::new(URL_SAFE_NO_PAD.encode(key(&folder.join("admin-token"), ids)?)),
    })
}

fn key(path: &Path, ids: &dyn IdGenerator) -> io::Result<[u8; 32]> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let named = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
            if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
                return Err(named("others can read this secret; set its mode to 0600"));
            }
            let bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| named("this is not a secret that GoChat has made"))?;
            bytes.try_into().map_err(|_| named("a secret has 32 bytes"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; 32];
            ids.random(&mut bytes);
            let mut name = [0; 8];
            ids.random(&mut name);
            let draft = path.with_extension(format!("draft-{:016x}", u64::from_le_bytes(name)));
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(URL_SAFE_NO_PAD.encode(bytes).as_bytes())?;
            file.sync_all()?;
            let kept = fs::hard_link(&draft, path);
            fs::remove_file(&draft)?;
            match kept {
                // Another role was first.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => key(path, ids),
                kept => kept.map(|()| bytes),
            }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gochat_core::time::CountingIds;

    #[test]
    fn secrets_stay_the_same_and_are_refused_when_others_can_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let first = load(folder.path(), &CountingIds::from(1)).unwrap();
        let second = load(folder.path(), &CountingIds::from(1000)).unwrap();
        assert_eq!(first.token_seed, second.token_seed);
        assert_ne!(first.token_seed, first.payload_key);
        let path = folder.path().join("token-key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load(folder.path(), &CountingIds::default()).unwrap_err().to_string().contains("0600"));
    }
}
