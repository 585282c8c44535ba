//! The generated protobuf code is what the schemas say. `GOCHAT_REGENERATE=1 cargo test -p gochat-tests generated` writes it anew.

use std::{fs, path::Path};

use prost::Message;

const SCHEMAS: [&str; 5] = ["client", "bus", "model", "repo", "logic"];

/// Messages that hold a secret: their `Debug` is written by hand.
const SECRETS: [&str; 12] = [
    "model.NewUser",
    "model.Credential",
    "model.NewSession",
    "model.Rotation",
    "model.Refreshed.Repeated",
    "model.Registration",
    "model.Login",
    "model.Session",
    "logic.RefreshRequest",
    "logic.ChangePasswordRequest",
    "logic.ResetPasswordRequest",
    "logic.JoinByLinkRequest",
];

#[test]
fn the_committed_protobuf_code_is_generated_from_the_schemas() {
    let transport = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gochat-transport");
    let files = SCHEMAS.map(|name| format!("gochat/v1/{name}.proto"));
    let schemas = protox::compile(files, [transport.join("proto")]).expect("the schemas compile");
    let folder = tempfile::tempdir().unwrap();
    // What reflection tells: without places in the sources, for they change with every comment.
    let mut described = schemas.clone();
    described.file.iter_mut().for_each(|file| file.source_code_info = None);
    described.file.retain(|file| file.name() != "gochat/v1/client.proto");
    fs::write(folder.path().join("descriptor.bin"), described.encode_to_vec()).unwrap();
    let mut build = tonic_prost_build::configure().out_dir(folder.path()).bytes(".").build_transport(false).emit_rerun_if_changed(false);
    build = build.skip_debug(SECRETS.map(|name| format!(".gochat.v1.{name}")));
    build.compile_fds(schemas).expect("code is generated");
    for (generated, committed) in [
        ("gochat.v1.rs", "client.rs"),
        ("gochat.v1.bus.rs", "bus.rs"),
        ("gochat.v1.model.rs", "model.rs"),
        ("gochat.v1.repo.rs", "repo.rs"),
        ("gochat.v1.logic.rs", "logic.rs"),
        ("descriptor.bin", "descriptor.bin"),
    ] {
        let fresh = fs::read(folder.path().join(generated)).unwrap();
        let path = transport.join("src/pb").join(committed);
        if std::env::var_os("GOCHAT_REGENERATE").is_some() {
            fs::write(&path, &fresh).unwrap();
        }
        assert!(fs::read(&path).unwrap_or_default() == fresh, "{committed} is not what the schemas say");
    }
}
