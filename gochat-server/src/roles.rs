//! The four logical services, as roles that one process plays together or several processes share.

/// Which roles a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// im-gateway: sockets, HTTP, the web chat.
    pub gateway: bool,
    /// im-logic: decides what clients ask for.
    pub logic: bool,
    /// im-repo: keeps everything.
    pub repo: bool,
    /// im-task: large groups and pushes.
    pub task: bool,
}

impl Roles {
    /// All of them: one process that needs no other.
    pub const ALL: Roles = Roles { gateway: true, logic: true, repo: true, task: true };
    /// A gateway.
    pub const GATEWAY: Roles = Roles { gateway: true, ..Roles::NONE };
    /// A logic role.
    pub const LOGIC: Roles = Roles { logic: true, ..Roles::NONE };
    /// A repo role.
    pub const REPO: Roles = Roles { repo: true, ..Roles::NONE };
    /// A task role.
    pub const TASK: Roles = Roles { task: true, ..Roles::NONE };

    const NONE: Roles = Roles { gateway: false, logic: false, repo: false, task: false };
}
