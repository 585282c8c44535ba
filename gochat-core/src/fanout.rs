//! Who is told at once and who later: a pure policy.

use crate::{limits::DIRECT_MEMBERS_BELOW, ports::Port};

/// How the members of a conversation are told of a new entry. The mechanism (`dispatch`) is the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fanout {
    /// By the logic role, right behind the commit.
    Direct,
    /// By the task role, from a record on the task topic.
    Deferred,
}

/// Decides the fanout of a conversation. Pure: the same size gives the same answer.
pub trait FanoutPolicy: Port {
    /// The fanout for a conversation with so many members.
    fn fanout(&self, member_count: u32) -> Fanout;
}

/// The seed's policy: below `threshold` members direct, from there on deferred.
#[derive(Clone, Copy, Debug)]
pub struct BySize {
    /// The smallest deferred size.
    pub threshold: u32,
}

impl Default for BySize {
    fn default() -> Self {
        BySize { threshold: DIRECT_MEMBERS_BELOW }
    }
}

impl FanoutPolicy for BySize {
    fn fanout(&self, member_count: u32) -> Fanout {
        if member_count < self.threshold { Fanout::Direct } else { Fanout::Deferred }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_of_99_is_direct_and_of_100_is_deferred() {
        assert_eq!(BySize::default().fanout(99), Fanout::Direct);
        assert_eq!(BySize::default().fanout(100), Fanout::Deferred);
    }
}
