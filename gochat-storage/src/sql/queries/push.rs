//! Push jobs. `due_at` is the lease as well: a claimed job is due again when its lease is over; an ended one never.

use std::time::Duration;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gochat_core::{
    ids::{ConversationId, DeviceId, PushJobId, Seq, UserId},
    model::{NewPushJob, PushJob, PushLogEntry, PushOutcome},
    time::Timestamp,
};

use super::{Conn, Fail, insert_push_job, limit, locked};
use crate::sql::{
    rows::{PushJobRow, push_outcome, push_outcome_number},
    schema::push_jobs,
};

pub async fn add(conn: &mut Conn, jobs: Vec<NewPushJob>) -> Result<usize, Fail> {
    let mut added = 0;
    for job in &jobs {
        added += usize::from(insert_push_job(conn, &PushJobRow::from_job(job)).await?);
    }
    Ok(added)
}

pub async fn any_due(conn: &mut Conn, now: Timestamp) -> Result<bool, Fail> {
    let due = push_jobs::table.filter(push_jobs::due_at.le(now.0)).select(push_jobs::due_at).limit(1);
    Ok(!due.load::<Option<i64>>(conn).await?.is_empty())
}

pub async fn claim(conn: &mut Conn, now: Timestamp, lease: Duration, rows: usize) -> Result<Vec<PushJob>, Fail> {
    let due = push_jobs::table.filter(push_jobs::due_at.le(now.0)).order((push_jobs::due_at, push_jobs::id)).limit(limit(rows));
    let found = locked!(due.select(PushJobRow::as_select())).load(conn).await?;
    let mut claimed = Vec::with_capacity(found.len());
    for row in found {
        let attempts = row.attempts + 1;
        let values = (push_jobs::due_at.eq(Some(now.plus(lease).0)), push_jobs::attempts.eq(attempts));
        diesel::update(push_jobs::table.find(&row.id)).set(values).execute(conn).await?;
        claimed.push(PushJob { job: row.job()?, attempts });
    }
    Ok(claimed)
}

pub async fn finish(conn: &mut Conn, results: Vec<(PushJobId, PushOutcome, Option<Timestamp>)>, at: Timestamp) -> Result<(), Fail> {
    for (id, outcome, again) in results {
        // Whoever comes late, after the lease, does not end it a second time.
        let job = push_jobs::table.filter(push_jobs::id.eq(&id.as_bytes()[..]).and(push_jobs::due_at.is_not_null()));
        match again.filter(|_| outcome == PushOutcome::Failed) {
            Some(again) => diesel::update(job).set(push_jobs::due_at.eq(Some(again.0))).execute(conn).await?,
            None => {
                let ended = (
                    push_jobs::due_at.eq(None::<i64>),
                    push_jobs::outcome.eq(Some(push_outcome_number(outcome))),
                    push_jobs::finished_at.eq(Some(at.0)),
                );
                diesel::update(job).set(ended).execute(conn).await?
            }
        };
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
