//! The task role: what is done behind the messages. Consumes `im-task-topic`.
//!
//! ```text
//! fanout.rs    Task::Fanout  -> dispatch to the members of a large group       (flow 3)
//! offline.rs   Task::Offline -> push jobs -> PushProvider -> push log           (flow 4)
//! ```

mod fanout;
mod offline;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{
    dispatch::Dispatcher,
    error::Result,
    ports::{Batch, Bus, PushProvider, Record, Routes, Store, Subscription, Task, Topic},
    time::{Clock, IdGenerator},
};

pub use offline::PushSettings;

/// Records of one partition that are taken at once.
const TASK_BATCH_MAX: usize = 256;

/// What the task role runs on.
#[derive(Clone, Debug)]
pub struct TaskPorts {
    /// Everything that is kept.
    pub store: Arc<dyn Store>,
    /// Records between roles.
    pub bus: Arc<dyn Bus>,
    /// Where devices are connected.
    pub routes: Arc<dyn Routes>,
    /// Tells devices that are not connected.
    pub push: Arc<dyn PushProvider>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn IdGenerator>,
}

/// The task role.
#[derive(Debug)]
pub struct TaskRole {
    ports: TaskPorts,
    dispatcher: Arc<Dispatcher>,
    offline: offline::Offline,
}

impl TaskRole {
    /// A task role on these ports.
    pub fn new(ports: TaskPorts, dispatcher: Arc<Dispatcher>, settings: PushSettings) -> Arc<Self> {
        Arc::new(TaskRole { ports, dispatcher, offline: offline::Offline::new(settings) })
    }

    /// Consumes the task topic and sends pushes until the bus is closed.
    pub async fn run(self: Arc<Self>) -> Result<()> {
        let tasks = self.ports.bus.subscribe(&Topic::Task, "im-task").await?;
        let (mut pushes, mut batches) = (JoinSet::new(), JoinSet::new());
        pushes.spawn(self.clone().push_loop());
        while let Ok(batch) = tasks.next(TASK_BATCH_MAX).await {
            batches.spawn(self.clone().process(tasks.clone(), batch));
            while batches.try_join_next().is_some() {}
        }
        batches.join_all().await;
        pushes.shutdown().await;
        Ok(())
    }

    async fn process(self: Arc<Self>, tasks: Arc<dyn Subscription>, batch: Batch) {
        let outcome = self.work(&batch.records).await;
        let settled = match outcome {
            Ok(()) => tasks.commit(batch.position).await,
            Err(error) => {
                tracing::warn!(?error, "tasks could not be done; they are repeated");
                tokio::time::sleep(Duration::from_millis(200)).await;
                tasks.release(batch.position).await
            }
        };
        if let Err(error) = settled {
            tracing::debug!(%error, "commit refused: the partition has moved, its new owner repeats the batch");
        }
    }

    /// Does a batch of tasks. May run twice: deliveries are known by their seq, push jobs by their key.
    async fn work(&self, records: &[Record]) -> Result<()> {
        let tasks: Vec<&Task> = records.iter().filter_map(|record| if let Record::Task(task) = record { Some(&**task) } else { None }).collect();
        let offline = self.fanout(&tasks).await?;
        self.record_offline(tasks.into_iter().chain(offline.iter().map(|task| &**task))).await
    }
}
