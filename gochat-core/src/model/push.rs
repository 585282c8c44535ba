use serde::{Deserialize, Serialize};

use crate::{
    ids::{ConversationId, DeviceId, MessageId, PushJobId, Seq, UserId},
    time::Timestamp,
};

/// A push to be sent to a user who was not connected when a message came. One per (user, device, message).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPushJob {
    /// Id of the job.
    pub id: PushJobId,
    /// Whom.
    pub user: UserId,
    /// Which device; one job for each device that is signed in.
    pub device: DeviceId,
    /// Where.
    pub conversation: ConversationId,
    /// Which entry.
    pub seq: Seq,
    /// The entry's id.
    pub message: MessageId,
    /// Who sent it.
    pub sender: UserId,
    /// Now.
    pub at: Timestamp,
}

/// A push job as it is worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushJob {
    /// The job.
    pub job: NewPushJob,
    /// Tries so far, this one counted.
    pub attempts: i32,
}

/// What is handed to a push provider. Body and names are there only where a setting says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Id of the job: the provider's key against repetition.
    pub id: PushJobId,
    /// Whom.
    pub user_id: UserId,
    /// Which device.
    pub device_id: DeviceId,
    /// Where; also the collapse key.
    pub conversation_id: ConversationId,
    /// Which entry.
    pub seq: Seq,
    /// Title by setting.
    pub title: String,
    /// Text by setting; the message itself only where the operator opted in.
    pub text: String,
}

/// How a push ended, or why it was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushOutcome {
    /// The provider took it.
    Sent,
    /// Not sent: the user has read the message meanwhile.
    Read,
    /// Not sent: the user is connected again and gets it there.
    Online,
    /// Not sent: the member muted the conversation, left it, or the session ended.
    Unwanted,
    /// The provider refused it for good.
    Refused,
    /// The provider failed; it is tried again until the attempts are used up.
    Failed,
}

/// A line of the push log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushLogEntry {
    /// Whom.
    pub user_id: UserId,
    /// Which device.
    pub device_id: DeviceId,
    /// Where.
    pub conversation_id: ConversationId,
    /// Which entry.
    pub seq: Seq,
    /// How it ended, if it did.
    pub outcome: Option<PushOutcome>,
    /// Tries.
    pub attempts: i32,
    /// When the job was made.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}
