use std::sync::Arc;

use gochat_core::{
    conformance::{self, store::CASES},
    ports::Store,
};
use gochat_storage::mysql::{self, MysqlSettings};

use crate::support::on_a_database;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mysql_keeps_the_contract_of_the_store() {
    on_a_database(async |database| conformance::run_all::<dyn Store>(CASES, Arc::new(database.store().await)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mysql_with_the_query_builder_alone_keeps_the_contract_of_the_store() {
    on_a_database(async |database| {
        let settings = MysqlSettings { by_query_builder: true, ..database.settings() };
        conformance::run_all::<dyn Store>(CASES, Arc::new(mysql::connect(&settings).await.unwrap())).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mysql_with_one_connection_of_each_kind_keeps_the_contract_of_the_store() {
    on_a_database(async |database| {
        let settings = MysqlSettings { writers: 1, readers: 1, ..database.settings() };
        conformance::run_all::<dyn Store>(CASES, Arc::new(mysql::connect(&settings).await.unwrap())).await;
    })
    .await;
}
