//! The public suites.

use std::sync::Arc;

use gochat_core::{
    cached::CachedStore,
    conformance::{self, cache, routes, store},
    ports::{Cache, Routes, Store},
};
use gochat_storage::{
    local::LocalCache,
    redis::{Redis, RedisCache, RedisRoutes},
    tiered::TieredCache,
};

use crate::support::{cluster, database, single};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_keeps_the_contract_of_the_routes() {
    conformance::run_all::<dyn Routes>(routes::CASES, Arc::new(RedisRoutes::new(single().await))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_contract_of_the_routes() {
    conformance::run_all::<dyn Routes>(routes::CASES, Arc::new(RedisRoutes::new(cluster().await))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_keeps_the_contract_of_the_cache() {
    conformance::run_all::<dyn Cache>(cache::CASES, Arc::new(RedisCache::new(single().await))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_contract_of_the_cache() {
    conformance::run_all::<dyn Cache>(cache::CASES, Arc::new(RedisCache::new(cluster().await))).await;
}

fn tiered(redis: Redis) -> Arc<dyn Cache> {
    Arc::new(TieredCache::new(Arc::new(LocalCache::new(16 << 20)), Arc::new(RedisCache::new(redis))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tiers_keep_the_contract_of_the_cache() {
    conformance::run_all::<dyn Cache>(cache::CASES, tiered(single().await)).await;
}

async fn stores(cached: CachedStore) {
    conformance::run_all::<dyn Store>(store::CASES, Arc::new(cached)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_in_front_changes_nothing_in_the_contract_of_the_store() {
    let (database, _folder) = database();
    stores(CachedStore::new(database, Arc::new(RedisCache::new(single().await)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_with_pages_in_front_changes_nothing_in_the_contract_of_the_store() {
    let (database, _folder) = database();
    stores(CachedStore::new(database, Arc::new(RedisCache::new(single().await))).with_pages()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tiers_in_front_change_nothing_in_the_contract_of_the_store() {
    let (database, _folder) = database();
    stores(CachedStore::new(database, tiered(cluster().await))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tiers_with_pages_in_front_change_nothing_in_the_contract_of_the_store() {
    let (database, _folder) = database();
    stores(CachedStore::new(database, tiered(cluster().await)).with_pages()).await;
}
