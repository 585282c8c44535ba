//! Push jobs. `due_at` is the lease as well: a claimed job is due again when its lease is over; an ended one never.

use std::{collections::BTreeMap, time::Duration};

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gochat_core::{
    ids::{ConversationId, DeviceId, PushJobId, Seq, UserId},
    model::{NewPushJob, PushJob, PushLogEntry, PushOutcome},
    time::Timestamp,
};

use super::{Conn, Fail, IN_MAX, insert_push_jobs, limit, taken};
use crate::sql::{
    rows::{PushJobRow, push_outcome, push_outcome_number},
    schema::push_jobs,
};

pub async fn add(conn: &mut Conn, jobs: Vec<NewPushJob>) -> Result<usize, Fail> {
    let rows: Vec<PushJobRow> = jobs.iter().map(PushJobRow::from_job).collect();
    insert_push_jobs(conn, &rows).await
}

pub async fn any_due(conn: &mut Conn, now: Timestamp) -> Result<bool, Fail> {
    let due = push_jobs::table.filter(push_jobs::due_at.le(now.0)).select(push_jobs::due_at).limit(1);
    Ok(!due.load::<Option<i64>>(conn).await?.is_empty())
}

pub async fn claim(conn: &mut Conn, now: Timestamp, lease: Duration, rows: usize) -> Result<Vec<PushJob>, Fail> {
    let due = push_jobs::table.filter(push_jobs::due_at.le(now.0)).order((push_jobs::due_at, push_jobs::id)).limit(limit(rows));
    let found = taken!(due.select(PushJobRow::as_select())).load(conn).await?;
    for page in found.chunks(IN_MAX) {
        let values = (push_jobs::due_at.eq(Some(now.plus(lease).0)), push_jobs::attempts.eq(push_jobs::attempts + 1));
        let jobs = push_jobs::table.filter(push_jobs::id.eq_any(page.iter().map(|row| &row.id)));
        diesel::update(jobs).set(values).execute(conn).await?;
    }
    found.into_iter().map(|row| Ok(PushJob { job: row.job()?, attempts: row.attempts + 1 })).collect()
}

pub async fn finish(conn: &mut Conn, results: Vec<(PushJobId, PushOutcome, Option<Timestamp>)>, at: Timestamp) -> Result<(), Fail> {
    // One statement for all jobs that end alike.
    let mut alike: BTreeMap<(i32, Option<Timestamp>), Vec<PushJobId>> = BTreeMap::new();
    for (id, outcome, again) in results {
        let again = again.filter(|_| outcome == PushOutcome::Failed);
        alike.entry((push_outcome_number(outcome), again)).or_default().push(id);
    }
    for ((outcome, again), ids) in alike {
        for page in ids.chunks(IN_MAX) {
            // Whoever comes late, after the lease, does not end it a second time.
            let open = push_jobs::id.eq_any(page.iter().map(|id| &id.as_bytes()[..])).and(push_jobs::due_at.is_not_null());
            let jobs = push_jobs::table.filter(open);
            match again {
                Some(again) => diesel::update(jobs).set(push_jobs::due_at.eq(Some(again.0))).execute(conn).await?,
                None => {
                    let ended = (push_jobs::due_at.eq(None::<i64>), push_jobs::outcome.eq(Some(outcome)), push_jobs::finished_at.eq(Some(at.0)));
                    diesel::update(jobs).set(ended).execute(conn).await?
                }
            };
        }
    }
    Ok(())
}

pub async fn log(conn: &mut Conn, user: UserId, rows: usize) -> Result<Vec<PushLogEntry>, Fail> {
    let query = push_jobs::table
        .filter(push_jobs::user_id.eq(&user.as_bytes()[..]))
        .order((push_jobs::created_at.desc(), push_jobs::id.desc()))
        .limit(limit(rows));
    let found = query.select(PushJobRow::as_select()).load(conn).await?;
    found
        .into_iter()
        .map(|row| {
            Ok(PushLogEntry {
                user_id: user,
                device_id: DeviceId::from_slice(&row.device_id)?,
                conversation_id: ConversationId::from_slice(&row.conversation_id)?,
                seq: Seq(row.seq),
                outcome: row.outcome.map(push_outcome).transpose()?,
                attempts: row.attempts,
                created_at: Timestamp(row.created_at),
                finished_at: row.finished_at.map(Timestamp),
            })
        })
        .collect()
}
