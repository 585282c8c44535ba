//! Fanout to large groups (flow 3): the same dispatch code as for small ones, only elsewhere.

use std::sync::Arc;

use super::TaskRole;
use crate::{dispatch::Entry, error::Result, ports::Task};

impl TaskRole {
    /// Tells the members of large groups. All entries of the batch go in one call, so that those of one group leave
    /// together. Answers with what is to be done for the members who are offline.
    pub(super) async fn fanout(&self, tasks: &[&Task]) -> Result<Vec<Arc<Task>>> {
        let mut entries = Vec::new();
        for task in tasks {
            if let Task::Fanout { messages, members_seq, from } = task {
                let senders = from.iter().copied().chain(std::iter::repeat(None));
                entries.extend(messages.iter().zip(senders).map(|(message, from)| Entry {
                    message: message.clone(),
                    from,
                    member_count: 0,
                    members_seq: *members_seq,
                }));
            }
        }
        self.dispatcher.fanout(&entries).await
    }
}
