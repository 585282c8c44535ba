//! The store over gRPC: `RepoService` is the [`Store`] trait, method for method, batches included.
//!
//! Every call may be repeated, as the contract of the store says, so the client does so itself when a connection breaks; where it
//! gives up, `UNAVAILABLE` means what it means in the store: the outcome is unknown, repeat the same call.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use gochat_core::{
    error::{Code, Result},
    ids::{ConversationId, DeviceId, MessageId, PushJobId, Seq, UserId},
    model::{
        Caller, Connected, Conversation, ConversationView, Credential, Device, GroupAction, JoinRequest, Listed, LoginAttempt, Mark, Member, Message,
        NewConversation, NewPushJob, NewSession, NewUser, ProfileChange, PushJob, PushLogEntry, PushOutcome, Readable, Refreshed, Rotation, User,
        UserStatus,
    },
    ports::{AppendBatch, Appended, Changed, Conversations, Created, Devices, Messages, PushJobs, Store, Users},
    time::Timestamp,
};
use tonic::{Request, Response, Status};

use super::{
    MESSAGE_BYTES_MAX,
    channel::{Calls, ClientSettings, Kind, Role},
    remote::{self, remote},
    wire::{Argument, Wire},
};
use crate::pb::repo::{
    self as pb,
    repo_service_client::RepoServiceClient,
    repo_service_server::{RepoService, SERVICE_NAME},
};

const ROLE: Role = Role { name: "repo", service: SERVICE_NAME, repeats_writes: true, unknown: Code::Unavailable };

remote! {
    /// A store, for clients in other processes.
    server RepoServer is RepoService over Store;
    /// A [`Store`] in another process. Cheap to clone.
    client RepoClient is RepoServiceClient with ROLE;

    Users {
        Write create_user(user: &NewUser) -> User = CreateUserRequest;
        Read users(ids: &[UserId]) -> Vec<Option<User>> = UsersRequest;
        Read user_by_name(username: &str) -> Option<User> = UserByNameRequest;
        Read user_by_external_id(external_id: &str) -> Option<User> = UserByExternalIdRequest;
        Read users_by_prefix(prefix: &str, after: Option<&str>, limit: usize) -> Vec<User> = UsersByPrefixRequest;
        Write update_profile(id: UserId, change: &ProfileChange) -> User = UpdateProfileRequest;
        Write set_user_status(id: UserId, status: UserStatus) -> Vec<Caller> = SetUserStatusRequest;
        Read credential(id: UserId) -> Option<Credential> = CredentialRequest;
        Write set_credential(credential: &Credential, revoke_except: Option<Option<DeviceId>>) -> Vec<Caller> = SetCredentialRequest;
    }
    Devices {
        Write record_login(session: &NewSession) -> (Device, Vec<Caller>) = RecordLoginRequest;
        Write record_failed_logins(attempts: &[LoginAttempt]) -> () = RecordFailedLoginsRequest;
        Read login_log(user: UserId, limit: usize) -> Vec<LoginAttempt> = LoginLogRequest;
        Write rotate_refresh(rotation: &Rotation) -> Refreshed = RotateRefreshRequest;
        Read devices_of(users: &[UserId]) -> Vec<Vec<Device>> = DevicesOfRequest;
        Read devices(keys: &[(UserId, DeviceId)]) -> Vec<Option<Device>> = DevicesRequest;
        Write sign_out(keys: &[(UserId, DeviceId)]) -> Vec<Option<Caller>> = SignOutRequest;
        Write connect(callers: &[Caller], at: Timestamp) -> Vec<Result<Connected>> = ConnectRequest;
    }
    Conversations {
        Write create_conversation(new: &NewConversation) -> Created = CreateConversationRequest;
        Read conversations(ids: &[ConversationId]) -> Vec<Option<Conversation>> = ConversationsRequest;
        Read conversation_view(user: UserId, id: ConversationId) -> Option<ConversationView> = ConversationViewRequest;
        Read conversations_of(user: UserId, before: Option<(Timestamp, ConversationId)>, limit: usize) -> Vec<ConversationView> = ConversationsOfRequest;
        Read listed(user: UserId, before: Option<(Timestamp, ConversationId)>, limit: usize) -> Vec<Listed> = ListedRequest;
        Read readable(reader: UserId, ids: &[ConversationId]) -> Vec<Option<Readable>> = ReadableRequest;
        Read members(id: ConversationId, after: Option<UserId>, limit: usize) -> Vec<Member> = MembersRequest;
        Read members_at(id: ConversationId, seq: Seq, after: Option<UserId>, limit: usize) -> Vec<UserId> = MembersAtRequest;
        Read memberships(id: ConversationId, users: &[UserId]) -> Vec<Vec<Member>> = MembershipsRequest;
        Write manage(id: ConversationId, actor: UserId, action: &GroupAction, event_id: MessageId, at: Timestamp) -> Changed = ManageRequest;
        Read conversation_by_link(link_hash: &[u8]) -> Option<Conversation> = ConversationByLinkRequest;
        Read join_requests(id: ConversationId, limit: usize) -> Vec<JoinRequest> = JoinRequestsRequest;
        Write set_muted(id: ConversationId, user: UserId, muted: bool) -> Member = SetMutedRequest;
    }
    Messages {
        Write append(batch: &AppendBatch) -> Vec<Result<Appended>> = AppendRequest;
        Read history(reader: UserId, id: ConversationId, after: Option<Seq>, before: Option<Seq>, limit: usize) -> Vec<Message> = HistoryRequest;
        Read log(id: ConversationId, after: Seq, through: Seq, limit: usize) -> Vec<Message> = LogRequest;
        Write mark(marks: &[Mark]) -> Vec<Result<(Member, bool)>> = MarkRequest;
        Write set_dispatched(marks: &[(ConversationId, Seq)]) -> () = SetDispatchedRequest;
        Read undispatched(after: Option<ConversationId>, scan: usize) -> (Vec<Conversation>, Option<ConversationId>) = UndispatchedRequest;
    }
    PushJobs {
        Write add_push_jobs(jobs: &[NewPushJob]) -> usize = AddPushJobsRequest;
        Write claim_push_jobs(now: Timestamp, lease: Duration, limit: usize) -> Vec<PushJob> = ClaimPushJobsRequest;
        Write finish_push_jobs(results: &[(PushJobId, PushOutcome, Option<Timestamp>)], at: Timestamp) -> () = FinishPushJobsRequest;
        Read push_log(user: UserId, limit: usize) -> Vec<PushLogEntry> = PushLogRequest;
    }
}
