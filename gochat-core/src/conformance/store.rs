//! The suite of [`Store`](crate::ports::Store): one file per aggregate.

mod accounts;
mod append;
mod cancel;
mod create;
mod groups;
mod lists;
mod marks;
mod push;
mod reading;
mod sessions;

use super::{Case, cases};
use crate::ports::Store;

/// Every case.
pub const CASES: &[Case<dyn Store>] = cases![dyn Store:
    accounts::a_name_and_an_external_id_belong_to_one_account,
    accounts::accounts_are_found_by_id_name_external_id_and_prefix,
    accounts::a_profile_changes_only_in_what_is_named,
    accounts::a_disabled_account_is_signed_out_everywhere,
    accounts::a_new_password_signs_out_whom_it_should,
    sessions::a_login_is_a_device_a_session_and_a_line_in_the_log,
    sessions::beyond_the_limit_the_device_seen_longest_ago_is_signed_out,
    sessions::a_session_ends_once_and_its_epoch_only_rises,
    sessions::a_connection_needs_the_current_session_and_gets_the_highest_epoch,
    sessions::a_refresh_token_is_good_for_one_use,
    sessions::racing_presentations_of_a_refresh_token_have_one_successor,
    sessions::a_used_refresh_token_shown_late_ends_the_session,
    create::a_conversation_is_made_whole_or_not_at_all,
    create::a_repeated_key_answers_with_the_first_conversation,
    create::a_pair_has_one_conversation_however_many_ask_at_once,
    create::a_key_makes_one_group_however_many_ask_at_once,
    append::drafts_get_the_next_seqs_in_their_order,
    append::refusals_between_drafts_take_no_seq_and_touch_nothing_else,
    append::who_may_not_send_is_told_why,
    append::only_what_the_sender_sees_can_be_answered,
    append::a_repeat_is_answered_with_what_was_stored_first,
    append::a_repeat_within_one_batch_is_one_message,
    append::a_repeat_is_answered_even_to_who_may_not_send_any_more,
    append::another_payload_under_the_same_id_is_a_conflict,
    append::a_refused_draft_may_be_sent_again,
    append::fifty_appends_at_once_leave_dense_seqs_and_every_sender_in_order,
    append::racing_repeats_make_one_message,
    append::no_message_follows_its_senders_removal,
    append::more_drafts_than_the_limit_are_refused_whole,
    append::dispatched_marks_only_rise,
    reading::history_is_clipped_to_what_the_reader_was_there_for,
    reading::history_pages_in_both_directions,
    reading::a_stranger_finds_nothing,
    reading::a_page_is_current_the_moment_an_entry_is_acknowledged,
    reading::no_page_shows_a_removed_reader_what_came_later,
    reading::what_is_readable_is_head_and_intervals_of_one_moment,
    reading::the_log_is_read_by_exact_seq,
    reading::members_at_an_entry_are_those_who_see_it,
    reading::members_come_in_pages,
    reading::what_was_not_dispatched_is_found_in_steps,
    marks::marks_only_rise_and_stop_at_the_last_visible_entry,
    marks::racing_marks_leave_the_highest,
    marks::unread_is_what_others_said_above_the_read_mark,
    marks::unread_is_exact_up_to_its_limit,
    lists::a_list_is_ordered_by_activity_and_comes_in_pages,
    lists::the_rows_of_a_list_are_those_of_its_views,
    lists::a_hidden_pair_comes_back_with_the_next_message,
    lists::who_has_left_keeps_the_view_and_loses_the_place_in_the_list,
    lists::muting_is_the_members_own_affair,
    groups::an_invitation_adds_whoever_is_not_there_yet,
    groups::a_group_is_joined_as_its_mode_says,
    groups::a_link_lets_in_until_it_is_replaced,
    groups::a_request_waits_for_its_answer,
    groups::leaving_ends_the_membership_with_the_entry_that_tells_of_it,
    groups::a_removed_member_sees_the_removal_and_nothing_later,
    groups::roles_are_given_by_the_owner_and_the_group_is_handed_over_whole,
    groups::a_silence_is_told_and_ends,
    groups::an_edit_changes_and_tells_only_what_differs,
    groups::a_dissolved_group_can_be_read_and_nothing_else,
    groups::what_a_role_may_not_do_changes_nothing,
    groups::a_pair_is_no_group,
    groups::a_group_never_has_more_members_than_it_may,
    groups::racing_removals_and_invitations_leave_a_consistent_group,
    groups::a_repeated_action_answers_with_its_first_outcome,
    push::a_job_is_made_once_per_device_and_message,
    push::a_claimed_job_is_leased_and_comes_back_when_the_lease_is_over,
    push::racing_claims_share_the_jobs,
    push::a_failed_job_is_due_again_and_an_ended_one_never,
    push::the_push_log_names_the_newest_first,
    cancel::a_dropped_append_is_whole_or_absent,
    cancel::a_dropped_create_is_whole_or_absent,
    cancel::a_dropped_action_is_whole_or_absent,
];
