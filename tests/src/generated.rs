//! The generated protobuf code is what the schemas say. `GOCHAT_REGENERATE=1 cargo test -p gochat-tests generated` writes it anew.

use std::{fs, path::Path};

#[test]
fn the_committed_protobuf_code_is_generated_from_the_schemas() {
    let transport = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gochat-transport");
    let schemas = protox::compile(["gochat/v1/client.proto", "gochat/v1/bus.proto"], [transport.join("proto")]).expect("the schemas compile");
    let folder = tempfile::tempdir().unwrap();
    let mut build = prost_build::Config::new();
    build.out_dir(folder.path()).bytes(["."]);
    build.compile_fds(schemas).expect("code is generated");
    for (generated, committed) in [("gochat.v1.rs", "client.rs"), ("gochat.v1.bus.rs", "bus.rs")] {
        let fresh = fs::read_to_string(folder.path().join(generated)).unwrap();
        let path = transport.join("src/pb").join(committed);
        if std::env::var_os("GOCHAT_REGENERATE").is_some() {
            fs::write(&path, &fresh).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), fresh, "{committed} is not what the schemas say");
    }
}
