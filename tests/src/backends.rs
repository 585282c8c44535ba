//! Every backend and decorator that we ship keeps the contract of its port: the public suites, on the real things.

use std::sync::Arc;

use gochat_core::{
    cached::CachedStore,
    conformance::{self, bus, cache, routes, store},
    ports::{Bus, Cache, Routes, Store},
};
use gochat_storage::{
    local::{LocalCache, LocalRoutes},
    mysql::{self, MysqlSettings},
    redis::{Redis, RedisCache, RedisSettings},
    sqlite::{self, Database, SqliteSettings},
    tiered::TieredCache,
};
use gochat_transport::{
    bus::{LocalBus, LocalBusSettings, WireBus},
    grpc::{self, ClientSettings, RepoClient, ServeSettings, Services},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot};

use crate::servers::{self, Namespace};

fn database(settings: &SqliteSettings) -> (Arc<Database>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite::open(&folder.path().join("gochat.db"), settings).unwrap();
    (Arc::new(database), folder)
}

/// This store, as another process would use it: behind a listener that ends with the sender.
async fn over_grpc(store: Arc<dyn Store>) -> (RepoClient, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let (end, ended) = oneshot::channel::<()>();
    tokio::spawn(async move { grpc::serve(listener, Services::default().repo(store), &ServeSettings::default(), async { drop(ended.await) }).await });
    let client = RepoClient::new(&[endpoint], &ClientSettings::default()).unwrap();
    client.ready().await.unwrap();
    (client, end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grpc_client_over_sqlite_keeps_the_contract_of_the_store() {
    let (database, _folder) = database(&SqliteSettings::default());
    let (client, _end) = over_grpc(database).await;
    conformance::run_all::<dyn Store>(store::CASES, Arc::new(client)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_behind_the_grpc_client_keeps_the_contract_of_the_store() {
    let (database, _folder) = database(&SqliteSettings::default());
    let cached = CachedStore::new(database, Arc::new(LocalCache::new(16 << 20)));
    let (client, _end) = over_grpc(Arc::new(cached)).await;
    conformance::run_all::<dyn Store>(store::CASES, Arc::new(client)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_contract_of_the_store() {
    let (database, _folder) = database(&SqliteSettings::default());
    conformance::run_all::<dyn Store>(store::CASES, database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_with_the_query_builder_alone_keeps_the_contract_of_the_store() {
    let (database, _folder) = database(&SqliteSettings { by_query_builder: true, ..SqliteSettings::default() });
    conformance::run_all::<dyn Store>(store::CASES, database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_in_front_changes_nothing_in_the_contract_of_the_store() {
    let (database, _folder) = database(&SqliteSettings::default());
    let cached = CachedStore::new(database, Arc::new(LocalCache::new(16 << 20)));
    conformance::run_all::<dyn Store>(store::CASES, Arc::new(cached)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_forgets_at_once_changes_nothing_in_the_contract_of_the_store() {
    let (database, _folder) = database(&SqliteSettings::default());
    let cached = CachedStore::new(database, Arc::new(LocalCache::new(1)));
    conformance::run_all::<dyn Store>(store::CASES, Arc::new(cached)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_in_front_change_nothing_in_the_contract_of_the_store() {
    let (database, _folder) = database(&SqliteSettings::default());
    let cached = CachedStore::new(database, Arc::new(LocalCache::new(16 << 20))).with_pages();
    conformance::run_all::<dyn Store>(store::CASES, Arc::new(cached)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tiers_of_cache_keep_the_contract_of_the_cache() {
    let tier = || Arc::new(LocalCache::new(16 << 20));
    conformance::run_all::<dyn Cache>(cache::CASES, Arc::new(TieredCache::new(tier(), tier()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_cache_keeps_the_contract_of_the_cache() {
    conformance::run_all::<dyn Cache>(cache::CASES, Arc::new(LocalCache::new(16 << 20))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_routes_keep_the_contract_of_the_routes() {
    conformance::run_all::<dyn Routes>(routes::CASES, Arc::new(LocalRoutes::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_bus_keeps_the_contract_of_the_bus() {
    conformance::run_all::<dyn Bus>(bus::CASES, Arc::new(LocalBus::new(LocalBusSettings::default()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_bus_with_one_small_partition_keeps_the_contract_of_the_bus() {
    // Room for what the cases offer without waiting, and for nothing more.
    let settings = LocalBusSettings { partitions: 1, upstream_records_max: 4_096, records_max: 64 };
    conformance::run_all::<dyn Bus>(bus::CASES, Arc::new(LocalBus::new(settings))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_pass_through_their_bytes_keep_the_contract_of_the_bus() {
    let bus = WireBus::new(Arc::new(LocalBus::new(LocalBusSettings::default())));
    conformance::run_all::<dyn Bus>(bus::CASES, Arc::new(bus)).await;
}

/// A database of its own on the real MariaDB.
async fn on_mysql() -> Arc<dyn Store> {
    let settings = MysqlSettings { migrate: true, ..MysqlSettings::new(Namespace::new().mysql) };
    Arc::new(mysql::connect(&settings).await.unwrap())
}

/// A local tier over the real Redis.
async fn two_tiers() -> Arc<dyn Cache> {
    let space = Namespace::new();
    let settings = RedisSettings { urls: vec![servers::redis()], prefix: format!("{}:", space.name), ..RedisSettings::default() };
    let redis = Redis::connect(settings).await.unwrap();
    Arc::new(TieredCache::new(Arc::new(LocalCache::new(16 << 20)), Arc::new(RedisCache::new(redis))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_cache_in_front_of_mysql_changes_nothing_in_the_contract_of_the_store() {
    let cached = CachedStore::new(on_mysql().await, Arc::new(LocalCache::new(16 << 20)));
    conformance::run_all::<dyn Store>(store::CASES, Arc::new(cached)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tiers_with_pages_in_front_of_mysql_change_nothing_in_the_contract_of_the_store() {
    let cached = CachedStore::new(on_mysql().await, two_tiers().await).with_pages();
    conformance::run_all::<dyn Store>(store::CASES, Arc::new(cached)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grpc_client_over_mysql_keeps_the_contract_of_the_store() {
    let (client, _end) = over_grpc(on_mysql().await).await;
    conformance::run_all::<dyn Store>(store::CASES, Arc::new(client)).await;
}

/// What logic sees of a repo role: everything on the way at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grpc_client_over_two_tiers_over_mysql_keeps_the_contract_of_the_store() {
    let cached = CachedStore::new(on_mysql().await, two_tiers().await).with_pages();
    let (client, _end) = over_grpc(Arc::new(cached)).await;
    conformance::run_all::<dyn Store>(store::CASES, Arc::new(client)).await;
}
