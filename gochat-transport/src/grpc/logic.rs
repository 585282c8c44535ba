//! What logic does for gateways, over gRPC: `LogicService` is the [`LogicApi`] trait, method for method.
//!
//! Reading calls are repeated when a connection breaks; what changes something is sent at most once: where its outcome is
//! unknown the client answers `TIMEOUT_UNKNOWN`, where it never left `UNAVAILABLE`.

use std::sync::Arc;

use async_trait::async_trait;
use gochat_core::{
    error::{Code, Result},
    ids::{ConversationId, DeviceId, UserId},
    model::{
        Caller, Connected, Conversation, ConversationView, Device, GroupAction, JoinRequest, LoginAttempt, Mark, Member, ProfileChange, PushLogEntry,
        User, UserStatus,
    },
    ports::{
        AccountsApi, ConversationsApi, CreateConversation, HistoryPage, HistoryQuery, LogicApi, LoginRequest, MessagesApi, Page, RegisterRequest,
        Session, SyncAnswer, SyncRequest,
    },
};
use tonic::{Request, Response, Status};

use super::{
    MESSAGE_BYTES_MAX,
    channel::{Calls, ClientSettings, Kind, Role},
    remote::{self, remote},
    wire::{Argument, Wire},
};
use crate::pb::logic::{
    self as pb,
    logic_service_client::LogicServiceClient,
    logic_service_server::{LogicService, SERVICE_NAME},
};

const ROLE: Role = Role { name: "logic", service: SERVICE_NAME, repeats_writes: false, unknown: Code::TimeoutUnknown };

remote! {
    /// The logic role, for gateways in other processes.
    server LogicServer is LogicService over LogicApi;
    /// A [`LogicApi`] in another process. Cheap to clone.
    client LogicClient is LogicServiceClient with ROLE;

    AccountsApi {
        Hash register(request: &RegisterRequest) -> User = RegisterRequest;
        Hash login(request: &LoginRequest) -> Session = LoginRequest;
        Write refresh(refresh_token: &str) -> Session = RefreshRequest;
        Write logout(caller: &Caller) -> () = LogoutRequest;
        Write connect(callers: &[Caller]) -> Vec<Result<Connected>> = ConnectRequest;
        Read sessions(devices: &[(UserId, DeviceId)]) -> Vec<Option<i64>> = SessionsRequest;
        Read devices(caller: &Caller) -> Vec<Device> = DevicesRequest;
        Write sign_out_device(caller: &Caller, device: DeviceId) -> () = SignOutDeviceRequest;
        Read login_log(caller: &Caller, limit: usize) -> Vec<LoginAttempt> = LoginLogRequest;
        Read users(caller: &Caller, ids: &[UserId]) -> Vec<User> = UsersRequest;
        Read find_users(caller: &Caller, query: &str, limit: usize) -> Vec<User> = FindUsersRequest;
        Write update_profile(caller: &Caller, change: &ProfileChange) -> User = UpdateProfileRequest;
        Hash change_password(caller: &Caller, current: &str, new: &str) -> () = ChangePasswordRequest;
        Read list_users(after: Option<&str>, limit: usize) -> Vec<User> = ListUsersRequest;
        Write set_user_status(username: &str, status: UserStatus) -> () = SetUserStatusRequest;
        Hash reset_password(username: &str, new: &str) -> () = ResetPasswordRequest;
    }
    ConversationsApi {
        Write create(caller: &Caller, request: &CreateConversation) -> (ConversationView, bool) = CreateRequest;
        Read list(caller: &Caller, cursor: Option<&str>, limit: usize) -> Page<ConversationView> = ListRequest;
        Read conversation(caller: &Caller, id: ConversationId) -> ConversationView = ConversationRequest;
        Read members(caller: &Caller, id: ConversationId, cursor: Option<&str>, limit: usize) -> Page<Member> = MembersRequest;
        Write manage(caller: &Caller, id: ConversationId, action: &GroupAction) -> Conversation = ManageRequest;
        Write new_link(caller: &Caller, id: ConversationId) -> String = NewLinkRequest;
        Write join_by_link(caller: &Caller, secret: &str) -> Conversation = JoinByLinkRequest;
        Read join_requests(caller: &Caller, id: ConversationId) -> Vec<JoinRequest> = JoinRequestsRequest;
        Write set_muted(caller: &Caller, id: ConversationId, muted: bool) -> Member = SetMutedRequest;
    }
    MessagesApi {
        Read history(caller: &Caller, query: &HistoryQuery) -> HistoryPage = HistoryRequest;
        Read sync(caller: &Caller, request: &SyncRequest) -> SyncAnswer = SyncRequest;
        Write mark(caller: &Caller, marks: &[Mark]) -> Vec<Result<Member>> = MarkRequest;
        Read push_log(caller: &Caller, limit: usize) -> Vec<PushLogEntry> = PushLogRequest;
    }
}
