use gochat_storage::mysql::{self, Durability, MysqlSettings, migrate};

use crate::support::{code, on_a_database, users};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_that_start_together_migrate_once() {
    on_a_database(async |database| {
        let url = database.url();
        let starts = (0..4).map(|_| {
            tokio::spawn({
                let url = url.clone();
                async move { migrate(&url).await.unwrap().len() }
            })
        });
        let ran: Vec<usize> = futures_util::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(ran.iter().sum::<usize>(), 1, "{ran:?}");
        let store = mysql::connect(&MysqlSettings::new(url)).await.unwrap();
        users::<1>(&store).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_missing_or_newer_is_refused() {
    on_a_database(async |database| {
        let plain = MysqlSettings { migrate: false, ..database.settings() };
        let missing = mysql::connect(&plain).await.unwrap_err();
        assert!(missing.message.contains("migrate it first"), "{missing}");
        database.store().await.close().await;
        let mut beside = database.beside().await;
        beside.run("INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')").await;
        for settings in [plain, database.settings()] {
            let newer = mysql::connect(&settings).await.unwrap_err();
            assert!(newer.message.contains("29990101000000"), "{newer}");
            assert_eq!(newer.code.as_str(), "INVALID_REQUEST");
        }
    })
    .await;
}

/// Each statement of a migration commits by itself, so that a crash leaves some of its tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_migration_is_run_again() {
    on_a_database(async |database| {
        migrate(&database.url()).await.unwrap();
        let mut beside = database.beside().await;
        beside.run("DELETE FROM __diesel_schema_migrations; DROP TABLE messages; DROP TABLE push_jobs").await;
        drop(beside);
        assert_eq!(migrate(&database.url()).await.unwrap().len(), 1);
        users::<1>(&database.store().await).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_does_not_exist_is_unavailable() {
    let nowhere = MysqlSettings::new("mysql://im:im@127.0.0.1:13399/im");
    assert_eq!(code(mysql::connect(&nowhere).await), "UNAVAILABLE");
    assert!(!format!("{nowhere:?}").contains("im:im"), "the password is shown");
}

/// On a runtime of one thread as well.
#[tokio::test]
async fn the_server_tells_what_a_commit_is_worth() {
    on_a_database(async |database| {
        let store = database.store().await;
        let found = store.durability().clone();
        let mut beside = database.beside().await;
        let flush = beside.numbers("SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED) AS value").await;
        let binlog = beside.numbers("SELECT CAST(@@log_bin AS SIGNED) AS value").await;
        let packet = beside.numbers("SELECT CAST(@@max_allowed_packet AS SIGNED) AS value").await;
        assert_eq!((found.flush_log_at_trx_commit, i64::from(found.log_bin), found.max_allowed_packet_bytes), (flush[0], binlog[0], packet[0]));
        assert_eq!(found.isolation, "READ-COMMITTED");
        assert!(found.to_string().contains(&found.version) && found.version.contains('.'));
    })
    .await;
}

#[test]
fn what_would_make_an_acknowledgement_a_lie_is_named() {
    let good = Durability {
        version: "10.11.19-MariaDB".into(),
        flush_log_at_trx_commit: 1,
        log_bin: false,
        sync_binlog: 0,
        isolation: "READ-COMMITTED".into(),
        max_allowed_packet_bytes: 16 << 20,
        read_only: false,
    };
    assert_eq!(good.problems(), [""; 0]);
    assert_eq!(Durability { flush_log_at_trx_commit: 3, ..good.clone() }.problems(), [""; 0]);
    assert_eq!(Durability { log_bin: true, sync_binlog: 1, ..good.clone() }.problems(), [""; 0]);
    let bad = [
        (Durability { flush_log_at_trx_commit: 2, ..good.clone() }, "innodb_flush_log_at_trx_commit is 2"),
        (Durability { flush_log_at_trx_commit: 3, version: "8.0.40".into(), ..good.clone() }, "innodb_flush_log_at_trx_commit is 3"),
        (Durability { log_bin: true, ..good.clone() }, "sync_binlog is 0"),
        (Durability { isolation: "REPEATABLE-READ".into(), ..good.clone() }, "READ-COMMITTED"),
        (Durability { max_allowed_packet_bytes: 1024, ..good.clone() }, "max_allowed_packet is 1024"),
        (Durability { read_only: true, ..good }, "read-only"),
    ];
    for (durability, problem) in bad {
        assert!(matches!(&durability.problems()[..], [only] if only.contains(problem)), "{durability}");
        assert!(durability.to_string().contains(problem));
    }
}
