//! Unread is a pure function of head, read mark and membership: never a counter that needs repair (I12).

use std::ops::RangeInclusive;

use crate::{ids::Seq, model::Member};

/// The entries above the member's read mark that the member can see. Unread is the number of those that count
/// and are by others; an empty range means 0 without looking.
pub fn unread_range(member: &Member, head: Seq) -> RangeInclusive<i64> {
    let first = member.read_seq.next().max(member.join_seq).max(member.hidden_seq.next());
    let last = member.leave_seq.unwrap_or(head).min(head);
    first.0..=last.0
}
