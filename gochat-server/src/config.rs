//! Settings: every one has a default, and can be set in a TOML file, by an environment variable and, the commonest, by a
//! flag; the later wins. A key that is not known is refused with the nearest known one.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use crate::roles::Roles;

/// Beginning of the environment variables.
const PREFIX: &str = "GOCHAT_";

/// Variables with the prefix that are not settings of the server.
const NOT_SETTINGS: [&str; 1] = ["GOCHAT_CONFIG"];

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $field:ident: $kind:ty = $default:literal, $key:literal $(, $secret:ident)?;)*) => {
        /// The settings of a server.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $doc])* pub $field: $kind,)*
            /// Where each setting came from.
            origins: BTreeMap<&'static str, Origin>,
        }

        /// Every setting: key, default, meaning, whether it is secret.
        pub const SETTINGS: &[SettingInfo] =
            &[$(SettingInfo { key: $key, default: $default, meaning: concat!($($doc, "\n"),*), secret: false $(|| stringify!($secret).len() > 0)? },)*];

        impl Config {
            fn assemble(given: &BTreeMap<String, (String, Origin)>) -> Result<Config, ConfigError> {
                let mut origins = BTreeMap::new();
                $(
                    let (text, origin) = given.get($key).cloned().unwrap_or_else(|| ($default.to_owned(), Origin::Default));
                    let $field = <$kind as Setting>::parse(&text)
                        .map_err(|why| ConfigError(format!("{} ({origin}): {why}", $key)))?;
                    origins.insert($key, origin);
                )*
                Ok(Config { $($field,)* origins })
            }

            fn show(&self, key: &str) -> String {
                match key { $($key => Setting::show(&self.$field),)* _ => String::new() }
            }
        }
    };
}

settings! {
    /// Address that clients connect to. Port 0 takes a free one.
    listen: SocketAddr = "127.0.0.1:8080", "listen";
    /// Folder that holds everything the server keeps.
    data: PathBuf = "./gochat-data", "data";
    /// Address of the admin listener (metrics, operators), or `off`. It has its own token, in the data folder.
    admin_listen: Switch<SocketAddr> = "127.0.0.1:0", "admin.listen";
    /// Refuse whatever weakens security: plaintext beyond loopback, short lives of passwords' hashes.
    production: bool = "false", "production";
    /// Listen in plaintext beyond loopback although `production` is set: TLS ends before the server.
    insecure_plaintext: bool = "false", "insecure.plaintext";
    /// Origins besides the server's own whose pages may connect, separated by commas.
    allowed_origins: List = "", "allowed_origins";
    /// What is logged: a level, or filters as of `tracing`.
    log_level: String = "info", "log.level";
    /// `text` or `json`.
    log_format: LogFormat = "text", "log.format";
    /// Threads of the runtime that serves HTTP and the roles. 0: one for each core.
    threads: usize = "0", "threads";
    /// Threads that own sockets. 0: half of the cores.
    gateway_shards: usize = "0", "gateway.shards";
    /// Connections of one address that have not authenticated yet.
    connections_per_address: usize = "100", "limits.connections_per_address";
    /// Sends of one connection per second, sustained.
    sends_per_second: u32 = "200", "limits.sends_per_second";
    /// Sends of one connection at once.
    sends_burst: u32 = "400", "limits.sends_burst";
    /// WebSocket connections at once.
    connections: usize = "200000", "limits.connections";
    /// HTTP connections at once; further ones wait in the kernel.
    http_connections: usize = "4096", "limits.http_connections";
    /// Bytes of a frame and of a message.
    frame_bytes: usize = "65536", "limits.frame_bytes";
    /// Bytes of the body of a request.
    http_body_bytes: usize = "65536", "limits.http_body_bytes";
    /// Bytes of pushes that wait for a slow connection before it is told to resync.
    outbox_bytes: usize = "65536", "limits.outbox_bytes";
    /// Requests of one connection, other than sends, that wait for their answers.
    requests_in_flight: u32 = "32", "limits.requests_in_flight";
    /// Registrations of one address per minute, and as many logins, sustained; twice as many refreshes.
    sign_ins_per_minute: u32 = "60", "limits.sign_ins_per_minute";
    /// Registrations of one address at once, and as many logins; twice as many refreshes.
    sign_ins_burst: u32 = "120", "limits.sign_ins_burst";
    /// Life of an access token in seconds.
    access_seconds: u64 = "7200", "tokens.access_seconds";
    /// Life of a refresh token in seconds.
    refresh_seconds: u64 = "2592000", "tokens.refresh_seconds";
    /// PBKDF2-HMAC-SHA256 iterations of new password hashes.
    password_iterations: u32 = "600000", "passwords.iterations";
    /// Threads that hash passwords. 0: all cores but one.
    password_workers: usize = "0", "passwords.workers";
    /// Users are also found by the beginning of their name.
    search_by_prefix: bool = "false", "users.search_by_prefix";
    /// Members from which a group is served by the task role.
    fanout_threshold: u32 = "100", "fanout.threshold";
    /// Messages that may wait to be stored, for each partition of the bus; more are refused with `OVERLOADED`.
    upstream_records_max: usize = "4096", "bus.upstream_records_max";
    /// Where everything is kept: empty for SQLite in the data folder, or `mysql://user:password@host:port/database`.
    store_url: String = "", "store.url", secret;
    /// Connections to MySQL that write, and as many that read.
    store_connections: usize = "4", "store.connections";
    /// Page cache of SQLite's writer in MiB.
    store_cache_mib: u32 = "64", "store.cache_mib";
    /// Threads that read from SQLite.
    store_readers: usize = "2", "store.readers";
    /// Copies of users and conversations in memory, in MiB. 0: none.
    cache_mib: u32 = "16", "cache.mib";
    /// Pages of 4 KiB that the database may have. 0: as many as the disk holds.
    store_pages_max: u32 = "0", "store.pages_max";
    /// Redis, for routes and the second cache tier: one `redis://host:port` for a server, several for a Cluster. Empty: in this process.
    redis_urls: List = "", "redis.urls", secret;
    /// What every key in Redis begins with: the namespace of this installation.
    redis_prefix: String = "gochat:", "redis.prefix";
    /// Kafka's brokers (`host:port`), separated by commas. Empty: the bus is in this process.
    kafka_brokers: List = "", "kafka.brokers";
    /// What the names of topics and groups begin with: the namespace of this installation.
    kafka_prefix: String = "", "kafka.prefix";
    /// Partitions of the upstream and the task topic: as many logic roles share the work at most. Changing it needs a drained bus
    /// (docs/scaling.md).
    kafka_partitions: u32 = "4", "kafka.partitions";
    /// Copies of each partition.
    kafka_replication: u32 = "1", "kafka.replication";
    /// Where repo roles answer (`http://host:port`), separated by commas: for logic and task roles without one of their own.
    repo_urls: List = "", "repo.urls";
    /// Where logic roles answer (`http://host:port`), separated by commas: for gateways without one of their own.
    logic_urls: List = "", "logic.urls";
    /// Address that a logic or repo role answers other roles on (gRPC).
    grpc_listen: SocketAddr = "127.0.0.1:9184", "grpc.listen";
    /// Stable name of this gateway: what its connections are told comes over the topic of this name. No two gateways share one.
    gateway_id: String = "main", "gateway.id";
    /// Folder of the secrets, the same for every role. Empty: the data folder.
    secrets: String = "", "secrets";
    /// `log` or `webhook`.
    push_provider: PushKind = "log", "push.provider";
    /// Where the webhook posts to (http).
    push_webhook_url: String = "", "push.webhook_url";
    /// Key of the webhook's signature.
    push_webhook_secret: String = "", "push.webhook_secret", secret;
    /// Title of a push.
    push_title: String = "GoChat", "push.title";
    /// Text of a push.
    push_text: String = "New message", "push.text";
    /// Put the sender's name and the text of messages into pushes.
    push_include_text: bool = "false", "push.include_text";
}

/// What is known of a setting.
#[derive(Clone, Copy, Debug)]
pub struct SettingInfo {
    /// Its key in the file; `a.b` is `b` in the table `[a]`, and `GOCHAT_A_B` in the environment.
    pub key: &'static str,
    /// Its value if nothing is said.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Whether it is never shown.
    pub secret: bool,
}

impl SettingInfo {
    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key.to_uppercase().replace('.', "_"))
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A file.
    File(String),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => f.write_str(path),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Where settings are looked for.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file that must exist; without it `gochat.toml` is read if it is there.
    pub file: Option<PathBuf>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Flags: key of the setting, name of the flag, value.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

impl Config {
    /// The settings from these sources.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let mut given = BTreeMap::new();
        let implicit = PathBuf::from("gochat.toml");
        let file = sources.file.clone().or_else(|| implicit.exists().then_some(implicit));
        if let Some(path) = file {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(&path).map_err(|error| ConfigError(format!("{name} cannot be read: {error}")))?;
            let table: toml::Table = text.parse().map_err(|error| ConfigError(format!("{name}: {error}")))?;
            read_table(&table, "", &name, &mut given)?;
        }
        for (variable, value) in sources.environment.iter().filter(|(name, _)| name.starts_with(PREFIX) && !NOT_SETTINGS.contains(&name.as_str())) {
            let known = SETTINGS.iter().find(|setting| setting.variable() == *variable);
            let known = known.ok_or_else(|| unknown(variable, SETTINGS.iter().map(SettingInfo::variable)))?;
            given.insert(known.key.to_owned(), (value.clone(), Origin::Environment(variable.clone())));
        }
        for (key, flag, value) in &sources.flags {
            given.insert((*key).to_owned(), (value.clone(), Origin::Flag(flag)));
        }
        let config = Config::assemble(&given)?;
        config.check()?;
        Ok(config)
    }

    /// The defaults with these values, for whoever embeds or tests the server.
    pub fn with(values: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut given = BTreeMap::new();
        for (key, value) in values {
            let known = SETTINGS.iter().find(|setting| setting.key == *key);
            let known = known.ok_or_else(|| unknown(key, SETTINGS.iter().map(|setting| setting.key.to_owned())))?;
            given.insert(known.key.to_owned(), ((*value).to_owned(), Origin::Default));
        }
        let config = Config::assemble(&given)?;
        config.check()?;
        Ok(config)
    }

    /// The folder of the secrets.
    pub fn secrets_folder(&self) -> PathBuf {
        if self.secrets.is_empty() { self.data.clone() } else { PathBuf::from(&self.secrets) }
    }

    /// Whether a process with these roles has everything that it must share with the others.
    pub fn check_roles(&self, roles: Roles) -> Result<(), ConfigError> {
        let missing = |key: &str, why: &str| Err(ConfigError(format!("{key}: {why}")));
        if roles != Roles::ALL && (roles.gateway || roles.logic || roles.task) {
            if self.kafka_brokers.0.is_empty() {
                return missing("kafka.brokers", "roles that are processes of their own need Kafka between them");
            }
            if self.redis_urls.0.is_empty() {
                return missing("redis.urls", "roles that are processes of their own need Redis to know who is connected where");
            }
        }
        if (roles.logic || roles.task) && !roles.repo && self.repo_urls.0.is_empty() {
            return missing("repo.urls", "without a repo role of its own this process needs to know where one answers");
        }
        if roles.gateway && !roles.logic && self.logic_urls.0.is_empty() {
            return missing("logic.urls", "without a logic role of its own this process needs to know where one answers");
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let beyond_loopback = !self.listen.ip().is_loopback();
        if self.production && beyond_loopback && !self.insecure_plaintext {
            let listen = self.listen;
            return Err(ConfigError(format!(
                "listen: production refuses plaintext beyond loopback ({listen}); listen on loopback behind a proxy that ends TLS, or set insecure.plaintext"
            )));
        }
        if self.production && self.password_iterations < 600_000 {
            return Err(ConfigError("passwords.iterations: production wants 600000 or more".into()));
        }
        if self.push_provider == PushKind::Webhook && (self.push_webhook_url.is_empty() || self.push_webhook_secret.is_empty()) {
            return Err(ConfigError("push.webhook_url and push.webhook_secret: the webhook needs both".into()));
        }
        Ok(())
    }

    /// Every setting with its value (secrets masked) and where it came from, one per line.
    pub fn describe(&self) -> String {
        let mut lines = String::new();
        for setting in SETTINGS {
            let value = self.show(setting.key);
            let value = if setting.secret && !value.is_empty() { "***".to_owned() } else { value };
            let origin = self.origins.get(setting.key).map_or_else(String::new, ToString::to_string);
            lines.push_str(&format!("{} = {:?}  # {origin}\n", setting.key, value));
        }
        lines
    }
}

fn read_table(table: &toml::Table, prefix: &str, file: &str, given: &mut BTreeMap<String, (String, Origin)>) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        let text = match value {
            toml::Value::Table(inner) if SETTINGS.iter().any(|setting| setting.key.starts_with(&format!("{key}."))) => {
                read_table(inner, &format!("{key}."), file, given)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(items) => {
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect::<Vec<_>>().join(",")
            }
            other => other.to_string(),
        };
        if !SETTINGS.iter().any(|setting| setting.key == key) {
            return Err(ConfigError(format!("{file}: {}", unknown(&key, SETTINGS.iter().map(|setting| setting.key.to_owned())))));
        }
        given.insert(key, (text, Origin::File(file.to_owned())));
    }
    Ok(())
}

fn unknown(name: &str, known: impl Iterator<Item = String>) -> ConfigError {
    let nearest = known.min_by_key(|known| strsim::damerau_levenshtein(known, name)).unwrap_or_default();
    ConfigError(format!("there is no setting {name}; the nearest one is {nearest}"))
}

/// A value of a setting, from and to text.
trait Setting: Sized {
    fn parse(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

macro_rules! by_from_str {
    ($($kind:ty, $what:literal;)*) => {$(
        impl Setting for $kind {
            fn parse(text: &str) -> Result<Self, String> {
                <$kind>::from_str(text.trim()).map_err(|_| format!("{text:?} is not {}", $what))
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

by_from_str! {
    SocketAddr, "an address such as 127.0.0.1:8080";
    bool, "true or false";
    usize, "a whole number";
    u64, "a whole number";
    u32, "a whole number";
}

impl Setting for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path is not empty".into()) } else { Ok(text.into()) }
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// A value or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch<T>(pub Option<T>);

impl<T: Setting> Setting for Switch<T> {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Switch(None)) } else { T::parse(text).map(|value| Switch(Some(value))).map_err(|why| format!("{why}, nor off")) }
    }
    fn show(&self) -> String {
        self.0.as_ref().map_or_else(|| "off".into(), Setting::show)
    }
}

/// Texts separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(pub Vec<String>);

impl Setting for List {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(List(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()))
    }
    fn show(&self) -> String {
        self.0.join(",")
    }
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$choice_doc:meta])* $choice:ident $text:literal),* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$choice_doc])* $choice),* }

        impl Setting for $name {
            fn parse(text: &str) -> Result<Self, String> {
                match text { $($text => Ok($name::$choice),)* _ => Err(format!("{text:?} is none of: {}", [$($text),*].join(", "))) }
            }
            fn show(&self) -> String {
                match self { $($name::$choice => $text.into()),* }
            }
        }
    )*};
}

choices! {
    /// Form of the log.
    LogFormat {
        /// For people.
        Text "text",
        /// One JSON object a line.
        Json "json"
    }
    /// Built-in push providers.
    PushKind {
        /// A structured log line.
        Log "log",
        /// A signed HTTP request.
        Webhook "webhook"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &'static str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.toml");
        std::fs::write(&path, file).unwrap();
        Config::load(&Sources {
            file: Some(path),
            environment: environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            flags: flags.iter().map(|(key, flag, value)| (*key, *flag, (*value).into())).collect(),
        })
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let file = "listen = '127.0.0.1:1000'\n[push]\ntitle = 'File'\ntext = 'File'\n[limits]\nsends_burst = 7\n";
        let environment = [("GOCHAT_LISTEN", "127.0.0.1:2000"), ("GOCHAT_PUSH_TITLE", "Environment"), ("PATH", "/bin")];
        let config = load(file, &environment, &[("listen", "--listen", "127.0.0.1:3000")]).unwrap();
        assert_eq!(
            (config.listen.port(), config.push_title.as_str(), config.push_text.as_str(), config.sends_burst),
            (3000, "Environment", "File", 7)
        );
        let described = config.describe();
        assert!(described.contains("push.title = \"Environment\"  # GOCHAT_PUSH_TITLE"), "{described}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let refused = |result: Result<Config, ConfigError>| result.unwrap_err().to_string();
        assert!(refused(load("lisen = 'x'", &[], &[])).contains("nearest one is listen"));
        assert!(refused(load("[push]\ntitel = 'x'", &[], &[])).contains("nearest one is push.title"));
        assert!(refused(load("", &[("GOCHAT_LISTN", "x")], &[])).contains("nearest one is GOCHAT_LISTEN"));
    }

    #[test]
    fn a_wrong_value_names_the_setting_and_where_it_came_from() {
        let error = load("", &[("GOCHAT_LISTEN", "here")], &[]).unwrap_err().to_string();
        assert!(error.contains("listen (GOCHAT_LISTEN)") && error.contains("127.0.0.1:8080"), "{error}");
        assert!(load("production = true\nlisten = '0.0.0.0:80'", &[], &[]).unwrap_err().to_string().contains("insecure.plaintext"));
    }

    #[test]
    fn secrets_are_masked() {
        let config = load("[push]\nwebhook_secret = 'hush'", &[], &[]).unwrap();
        assert!(!config.describe().contains("hush"));
    }
}
