//! What the roles run on, as the settings say it: the only file that names concrete backends.
//!
//! | port | in this process | shared by processes |
//! |---|---|---|
//! | `Store` | SQLite, MySQL | gRPC to repo roles |
//! | `Cache` | local | local over Redis |
//! | `Routes` | local | Redis |
//! | `Bus` | local | Kafka |
//! | `LogicApi` | the logic role | gRPC to logic roles |

use std::sync::Arc;

use gochat_core::{
    cached::CachedStore,
    error::{Code, Error, Result},
    ids::GatewayId,
    ports::{Bus, Cache, LogicApi, Routes, Store},
};
#[cfg(feature = "mysql")]
use gochat_storage::mysql;
use gochat_storage::{
    local::{LocalCache, LocalRoutes},
    sqlite,
};
#[cfg(feature = "redis")]
use gochat_storage::{
    redis::{Redis, RedisCache, RedisRoutes, RedisSettings},
    tiered::TieredCache,
};
#[cfg(feature = "kafka")]
use gochat_transport::bus::{KafkaBus, KafkaSettings};
use gochat_transport::bus::{LocalBus, LocalBusSettings, WireBus};
#[cfg(feature = "grpc")]
use gochat_transport::grpc::{ClientSettings, LogicClient, RepoClient};

use crate::{config::Config, metrics::Source, readiness::Readiness};

/// The store of a repo role.
#[derive(Clone, Debug)]
pub enum Database {
    /// In one file.
    Sqlite(sqlite::Database),
    /// On a server.
    #[cfg(feature = "mysql")]
    Mysql(mysql::Database),
}

impl Database {
    /// Opens the store, bringing its schema up to date. Waits for a server that is away; a file is there or refused.
    pub async fn open(config: &Config, readiness: &Readiness) -> Result<Database> {
        if config.store_url.is_empty() {
            let settings = sqlite::SqliteSettings {
                readers: config.store_readers,
                cache_kib: config.store_cache_mib.saturating_mul(1024),
                page_count_max: config.store_pages_max,
                ..sqlite::SqliteSettings::default()
            };
            return sqlite::open(&config.data.join("gochat.db"), &settings).map(Database::Sqlite);
        }
        #[cfg(feature = "mysql")]
        return Database::mysql(config, readiness).await;
        #[cfg(not(feature = "mysql"))]
        {
            let _ = readiness;
            Err(absent("store.url", "mysql"))
        }
    }

    #[cfg(feature = "mysql")]
    async fn mysql(config: &Config, readiness: &Readiness) -> Result<Database> {
        let settings = mysql::MysqlSettings {
            writers: config.store_connections,
            readers: config.store_connections,
            migrate: true,
            ..mysql::MysqlSettings::new(&config.store_url)
        };
        let database = readiness.wait_for("the store", || mysql::connect(&settings)).await?;
        let durability = database.durability();
        tracing::info!("the store: {durability}");
        for problem in durability.problems() {
            if config.production {
                return Err(Error::new(Code::InvalidRequest, format!("production refuses a store whose commits may be lost: {problem}")));
            }
            tracing::warn!("an acknowledged message may be lost: {problem}");
        }
        Ok(Database::Mysql(database))
    }

    /// The store with its caches in front.
    pub fn store(&self, config: &Config, shared: &Shared) -> Arc<dyn Store> {
        let (store, pages): (Arc<dyn Store>, bool) = match self {
            Database::Sqlite(database) => (Arc::new(database.clone()), false),
            #[cfg(feature = "mysql")]
            Database::Mysql(database) => (Arc::new(database.clone()), true),
        };
        match shared.cache(config) {
            // SQLite reads a page faster than a copy of it is decoded.
            Some(cache) if pages => Arc::new(CachedStore::new(store, cache).with_pages()),
            Some(cache) => Arc::new(CachedStore::new(store, cache)),
            None => store,
        }
    }

    /// What it counts.
    pub fn source(&self) -> Source {
        match self {
            Database::Sqlite(database) => Source::Sqlite(database.clone()),
            #[cfg(feature = "mysql")]
            Database::Mysql(database) => Source::Mysql(database.clone()),
        }
    }

    /// Ends it: what was begun is done.
    pub async fn close(self) {
        match self {
            Database::Sqlite(database) => {
                let _ = tokio::task::spawn_blocking(move || database.close()).await;
            }
            #[cfg(feature = "mysql")]
            Database::Mysql(database) => database.close().await,
        }
    }
}

/// What roles share beside the store: Redis, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    #[cfg(feature = "redis")]
    redis: Option<Redis>,
}

impl Shared {
    /// Prepares the connection. Nothing waits for Redis: whoever cannot reach it works on without knowing who is connected
    /// (decision 8).
    pub async fn connect(config: &Config) -> Result<Shared> {
        if config.redis_urls.0.is_empty() {
            return Ok(Shared::default());
        }
        #[cfg(feature = "redis")]
        return Ok(Shared {
            redis: Some(
                Redis::connect(RedisSettings { urls: config.redis_urls.0.clone(), prefix: config.redis_prefix.clone(), ..RedisSettings::default() })
                    .await?,
            ),
        });
        #[cfg(not(feature = "redis"))]
        Err(absent("redis.urls", "redis"))
    }

    /// What it counts.
    pub fn source(&self) -> Option<Source> {
        #[cfg(feature = "redis")]
        return self.redis.clone().map(Source::Redis);
        #[cfg(not(feature = "redis"))]
        None
    }

    /// Where devices are connected.
    pub fn routes(&self) -> Arc<dyn Routes> {
        #[cfg(feature = "redis")]
        if let Some(redis) = &self.redis {
            return Arc::new(RedisRoutes::new(redis.clone()));
        }
        Arc::new(LocalRoutes::default())
    }

    fn cache(&self, config: &Config) -> Option<Arc<dyn Cache>> {
        let bytes = u64::from(config.cache_mib) << 20;
        if bytes == 0 {
            return None;
        }
        let local = LocalCache::new(bytes);
        #[cfg(feature = "redis")]
        if let Some(redis) = &self.redis {
            return Some(Arc::new(TieredCache::new(Arc::new(local), Arc::new(RedisCache::new(redis.clone())))));
        }
        Some(Arc::new(local))
    }
}

/// The bus.
#[derive(Clone, Debug)]
pub enum AnyBus {
    /// In this process.
    Local(LocalBus),
    /// On Kafka.
    #[cfg(feature = "kafka")]
    Kafka(KafkaBus),
}

impl AnyBus {
    /// Connects, and waits until the topics that this process needs are there.
    pub async fn open(config: &Config, gateway: Option<&GatewayId>, readiness: &Readiness) -> Result<AnyBus> {
        if config.kafka_brokers.0.is_empty() {
            let settings = LocalBusSettings { upstream_records_max: config.upstream_records_max, ..LocalBusSettings::default() };
            return Ok(AnyBus::Local(LocalBus::new(settings)));
        }
        #[cfg(feature = "kafka")]
        {
            use gochat_core::ports::Topic;

            let bus = kafka(config)?;
            let mut topics = vec![Topic::Upstream, Topic::Task, Topic::DeadLetter];
            topics.extend(gateway.cloned().map(Topic::Downstream));
            readiness.wait_for("Kafka", || bus.ensure_topics(&topics)).await?;
            Ok(AnyBus::Kafka(bus))
        }
        #[cfg(not(feature = "kafka"))]
        {
            let _ = (gateway, readiness);
            Err(absent("kafka.brokers", "kafka"))
        }
    }

    /// As roles see it; with every record passed through its bytes, if a test asks for that.
    pub fn port(&self, records_as_bytes: bool) -> Arc<dyn Bus> {
        let bus: Arc<dyn Bus> = match self {
            AnyBus::Local(bus) => Arc::new(bus.clone()),
            #[cfg(feature = "kafka")]
            AnyBus::Kafka(bus) => Arc::new(bus.clone()),
        };
        if records_as_bytes { Arc::new(WireBus::new(bus)) } else { bus }
    }

    /// What it counts.
    pub fn source(&self) -> Source {
        match self {
            AnyBus::Local(bus) => Source::LocalBus(bus.clone()),
            #[cfg(feature = "kafka")]
            AnyBus::Kafka(bus) => Source::Kafka(bus.clone()),
        }
    }

    /// Ends the subscriptions: roles finish what they have begun, and commit it.
    pub async fn close(&self) {
        match self {
            AnyBus::Local(bus) => bus.close(),
            #[cfg(feature = "kafka")]
            AnyBus::Kafka(bus) => {
                if let Err(error) = bus.close().await {
                    tracing::warn!(?error, "the bus ended without its last commits: those records come again");
                }
            }
        }
    }
}

/// The bus on Kafka that the settings name.
#[cfg(feature = "kafka")]
pub fn kafka(config: &Config) -> Result<KafkaBus> {
    if config.kafka_brokers.0.is_empty() {
        return Err(Error::new(Code::InvalidRequest, "kafka.brokers: no broker is named"));
    }
    KafkaBus::connect(KafkaSettings {
        brokers: config.kafka_brokers.0.join(","),
        prefix: config.kafka_prefix.clone(),
        partitions: config.kafka_partitions,
        replication: config.kafka_replication,
        ..KafkaSettings::default()
    })
}

/// The store of other processes.
pub async fn remote_store(config: &Config, readiness: &Readiness) -> Result<Arc<dyn Store>> {
    #[cfg(feature = "grpc")]
    {
        let client = RepoClient::new(&config.repo_urls.0, &ClientSettings::default())?;
        readiness.wait_for("a repo role", || client.ready()).await?;
        Ok(Arc::new(client))
    }
    #[cfg(not(feature = "grpc"))]
    {
        let _ = (config, readiness);
        Err(absent("repo.urls", "grpc"))
    }
}

/// The logic roles of other processes.
pub async fn remote_logic(config: &Config, readiness: &Readiness) -> Result<Arc<dyn LogicApi>> {
    #[cfg(feature = "grpc")]
    {
        let client = LogicClient::new(&config.logic_urls.0, &ClientSettings::default())?;
        readiness.wait_for("a logic role", || client.ready()).await?;
        Ok(Arc::new(client))
    }
    #[cfg(not(feature = "grpc"))]
    {
        let _ = (config, readiness);
        Err(absent("logic.urls", "grpc"))
    }
}

/// A setting that asks for what this build does not hold.
#[allow(dead_code, reason = "a build with every feature never refuses")]
fn absent(key: &str, feature: &str) -> Error {
    Error::new(Code::InvalidRequest, format!("{key}: this build has no {feature}; build with `--features {feature}` (or `distributed`)"))
}
