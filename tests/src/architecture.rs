//! The shape of the code holds: who may depend on whom, read from the manifests and from the sources.
//!
//! Sources are parsed; what stands under `#[cfg(test)]` is left out, comments do not count, and paths inside macros do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item};

/// Every crate of ours with those of ours that it may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("gochat-core", &[]),
    ("gochat-storage", &["gochat-core"]),
    ("gochat-transport", &["gochat-core"]),
    ("gochat-server", &["gochat-core", "gochat-storage", "gochat-transport"]),
    ("examples", &["gochat-core", "gochat-storage", "gochat-transport", "gochat-server"]),
    ("tests", &["gochat-core", "gochat-storage", "gochat-transport", "gochat-server"]),
];

/// Crates that would bring sockets, SQL, a broker or a wire format into the core.
const NOT_IN_CORE: &[&str] = &[
    "axum",
    "diesel",
    "diesel-async",
    "fastwebsockets",
    "http",
    "hyper",
    "libsqlite3-sys",
    "moka",
    "prost",
    "rdkafka",
    "redis",
    "rusqlite",
    "socket2",
    "tonic",
    "tower",
];

const WORDS: &[&str] = &["error", "ids", "time", "limits"];

/// Modules of the core with those that they may name besides [`WORDS`] and themselves.
const CORE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("ids", &[]),
    ("time", &[]),
    ("limits", &[]),
    ("model", &[]),
    ("ports", &["model"]),
    ("rules", &["model", "ports"]),
    ("fanout", &["model", "ports"]),
    ("route", &["model", "ports"]),
    ("unread", &["model"]),
    ("auth", &["model", "ports", "rules"]),
    ("dispatch", &["model", "ports", "rules", "fanout", "route", "unread"]),
    ("cached", &["model", "ports", "unread"]),
    ("logic", &["model", "ports", "rules", "fanout", "route", "unread", "auth", "dispatch"]),
    ("task", &["model", "ports", "rules", "fanout", "route", "unread", "dispatch"]),
    ("conformance", &["model", "ports"]),
];

/// Files of the server that may name a concrete backend, and why.
const NAMES_BACKENDS: &[(&str, &str)] = &[
    ("wire/backends.rs", "makes what the settings ask for"),
    ("metrics.rs", "shows the figures that only those very parts have"),
    ("bench/calibrate.rs", "measures the store's schema without a server around it"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A source file without its tests.
struct Source {
    /// Path below the crate's `src`.
    path: String,
    tokens: Vec<TokenTree>,
}

/// The sources of a crate without its tests.
fn sources(name: &str) -> Vec<Source> {
    let folder = root().join(name).join("src");
    let (mut found, mut test_files) = (Vec::new(), Vec::new());
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let mut file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                // `mod x;` of mod.rs and lib.rs stands beside the file, of any other file in the folder of its name.
                let beside = matches!(path.file_stem().and_then(|stem| stem.to_str()), Some("mod" | "lib" | "main"));
                let home = if beside { next.clone() } else { path.with_extension("") };
                file.items.retain(|item| {
                    let test = attributes(item).iter().any(is_test);
                    if let (true, Item::Mod(module)) = (test, item) {
                        test_files.extend([home.join(format!("{}.rs", module.ident)), home.join(module.ident.to_string())]);
                    }
                    !test
                });
                found.push((path, file.into_token_stream()));
            }
        }
    }
    assert!(found.len() > 2, "no sources in {}", folder.display());
    found.retain(|(path, _)| !test_files.iter().any(|test| path.starts_with(test)));
    found
        .into_iter()
        .map(|(path, tokens)| Source { path: path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned(), tokens: flat(tokens) })
        .collect()
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(attribute: &Attribute) -> bool {
    let text = attribute.to_token_stream().to_string().replace(' ', "");
    text.contains("cfg(test)") || text.contains("cfg(all(test")
}

/// Every token, groups with their delimiters as an opening group of their own.
fn flat(tokens: TokenStream) -> Vec<TokenTree> {
    let mut all = Vec::new();
    for token in tokens {
        if let TokenTree::Group(group) = &token {
            let inner = group.stream();
            all.push(token);
            all.extend(flat(inner));
        } else {
            all.push(token);
        }
    }
    all
}

fn is(token: Option<&TokenTree>, text: &str) -> bool {
    match token {
        Some(TokenTree::Ident(ident)) => ident == text,
        Some(TokenTree::Punct(punct)) => text.len() == 1 && text.starts_with(punct.as_char()),
        _ => false,
    }
}

/// The names that stand behind `first ::`, also those of a list in braces.
fn named_after(tokens: &[TokenTree], first: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        if !is(Some(token), first) || !is(tokens.get(at + 1), ":") || !is(tokens.get(at + 2), ":") {
            continue;
        }
        match tokens.get(at + 3) {
            Some(TokenTree::Ident(ident)) => drop(names.insert(ident.to_string())),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let mut begins = true;
                for inner in group.stream() {
                    match &inner {
                        TokenTree::Ident(ident) if begins => drop(names.insert(ident.to_string())),
                        _ => {}
                    }
                    begins = is(Some(&inner), ",");
                }
            }
            _ => {}
        }
    }
    names
}

fn names(tokens: &[TokenTree], ident: &str) -> bool {
    tokens.iter().any(|token| matches!(token, TokenTree::Ident(found) if found == ident))
}

fn manifest(name: &str) -> toml::Table {
    fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap().parse().unwrap()
}

fn dependencies(name: &str) -> BTreeMap<String, toml::Value> {
    match manifest(name).get("dependencies") {
        Some(toml::Value::Table(table)) => table.clone().into_iter().collect(),
        _ => panic!("{name} has no dependencies"),
    }
}

#[test]
fn a_crate_depends_only_on_crates_below_it() {
    let workspace = manifest("");
    let members: Vec<&str> = workspace["workspace"]["members"].as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
    assert_eq!(members, CRATES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, below) in CRATES {
        for dependency in dependencies(name).keys().filter(|dependency| dependency.starts_with("gochat")) {
            assert!(below.contains(&dependency.as_str()), "{name} depends on {dependency}");
        }
        let above = CRATES.iter().map(|(other, _)| *other).filter(|other| other != name && !below.contains(other));
        for other in above.map(|other| other.replace('-', "_")).filter(|other| other.starts_with("gochat")) {
            for source in sources(name) {
                assert!(!names(&source.tokens, &other), "{name}/src/{} names {other}", source.path);
            }
        }
    }
}

#[test]
fn the_core_knows_no_backend() {
    let dependencies = dependencies("gochat-core");
    for forbidden in NOT_IN_CORE {
        assert!(!dependencies.contains_key(*forbidden), "gochat-core depends on {forbidden}");
    }
    let features = dependencies["tokio"]["features"].as_array().unwrap();
    for forbidden in ["net", "fs", "process", "io-util", "full"] {
        assert!(!features.iter().any(|feature| feature.as_str() == Some(forbidden)), "gochat-core uses tokio's {forbidden}");
    }
    for source in sources("gochat-core") {
        for forbidden in ["fs", "process", "env"] {
            assert!(!named_after(&source.tokens, "std").contains(forbidden), "{} names std::{forbidden}", source.path);
        }
        // Addresses are values; sockets are not.
        for forbidden in ["TcpStream", "TcpListener", "UdpSocket", "ToSocketAddrs"] {
            assert!(!names(&source.tokens, forbidden), "{} names {forbidden}", source.path);
        }
    }
}

#[test]
fn the_core_is_given_its_time_and_ids() {
    for source in sources("gochat-core") {
        if source.path == "time.rs" || source.path.starts_with("conformance") {
            continue;
        }
        for forbidden in ["SystemTime", "now_v7", "new_v4", "now_utc"] {
            assert!(!names(&source.tokens, forbidden), "{} names {forbidden}", source.path);
        }
    }
}

#[test]
fn modules_of_the_core_use_only_what_is_below_them() {
    let module = |path: &str| path.split(['/', '.']).next().unwrap_or_default().to_owned();
    let mut seen = BTreeSet::new();
    for source in sources("gochat-core") {
        let own = module(&source.path);
        if own == "lib" {
            continue;
        }
        let (_, below) = CORE.iter().find(|(name, _)| *name == own).unwrap_or_else(|| panic!("{own} has no place in the order of modules"));
        for used in named_after(&source.tokens, "crate") {
            let is_module = CORE.iter().any(|(name, _)| *name == used);
            let allowed = used == own || below.contains(&used.as_str()) || (WORDS.contains(&used.as_str()));
            assert!(!is_module || allowed, "gochat-core/src/{} uses crate::{used}", source.path);
        }
        seen.insert(own);
    }
    assert_eq!(seen.len(), CORE.len(), "every module of the order is there");
}

#[test]
fn the_bus_and_the_gateway_do_not_know_each_other() {
    for source in sources("gochat-transport") {
        let used = named_after(&source.tokens, "crate");
        let (bus, gateway) = (source.path.starts_with("bus"), source.path.starts_with("gateway"));
        assert!(!(bus && used.contains("gateway") || gateway && used.contains("bus")), "gochat-transport/src/{}", source.path);
    }
}

#[test]
fn only_the_wiring_names_concrete_backends() {
    let concrete = ["gochat_storage", "LocalBus", "WireBus", "KafkaBus", "RepoClient", "LogicClient", "LocalCache", "LocalRoutes", "SqliteSettings"];
    let mut found = BTreeSet::new();
    for source in sources("gochat-server") {
        if let Some(name) = concrete.iter().find(|name| names(&source.tokens, name)) {
            assert!(NAMES_BACKENDS.iter().any(|(path, _)| *path == source.path), "gochat-server/src/{} names {name}", source.path);
            found.insert(source.path);
        }
    }
    for (path, why) in NAMES_BACKENDS {
        assert!(found.contains(*path), "{path} names no backend any more, though it may: it {why}");
    }
}

#[test]
fn nothing_but_tests_panics_on_purpose() {
    for name in ["gochat-core", "gochat-storage", "gochat-transport", "gochat-server"] {
        for source in sources(name).into_iter().filter(|source| !source.path.starts_with("conformance")) {
            for (at, token) in source.tokens.iter().enumerate() {
                let called = is(at.checked_sub(1).and_then(|before| source.tokens.get(before)), ".");
                for method in ["unwrap", "expect"] {
                    assert!(!(called && is(Some(token), method)), "{name}/src/{} calls {method}() outside tests", source.path);
                }
            }
        }
    }
}

#[test]
fn a_check_notices_what_it_is_for() {
    let tokens = |text: &str| flat(text.parse().unwrap());
    let list = |text: &str| named_after(&tokens(text), "crate").into_iter().collect::<Vec<_>>();
    assert_eq!(list("use crate::{error::{Code, Error}, logic, ports::Bus}; fn f() { vec![crate::task::X] }"), ["error", "logic", "ports", "task"]);
    assert_eq!(list("use other::{error, logic}; /// crate::task\nfn f() {}"), Vec::<String>::new());
    assert!(names(&tokens("fn f() { dbg!(gochat_storage::open()) }"), "gochat_storage"));
}
