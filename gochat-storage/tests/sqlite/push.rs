use std::time::Duration;

use gochat_core::{
    ids::{ConversationId, DeviceId, MessageId, PushJobId, Seq, UserId},
    model::{NewPushJob, PushOutcome},
    ports::PushJobs,
    time::Timestamp,
};
use uuid::Uuid;

use crate::support::store;

const LEASE: Duration = Duration::from_secs(60);

fn job(user: UserId, at: Timestamp) -> NewPushJob {
    NewPushJob {
        id: PushJobId::from(Uuid::now_v7()),
        user,
        device: DeviceId::from(Uuid::now_v7()),
        conversation: ConversationId::from(Uuid::now_v7()),
        seq: Seq(7),
        message: MessageId::from(Uuid::now_v7()),
        sender: UserId::from(Uuid::now_v7()),
        at,
    }
}

#[tokio::test]
async fn a_job_is_made_once_and_leased_to_one() {
    let store = store();
    let (user, at) = (UserId::from(Uuid::now_v7()), Timestamp(1000));
    let (one, two) = (job(user, at), job(user, at.plus(Duration::from_millis(5))));
    let again = NewPushJob { id: PushJobId::from(Uuid::now_v7()), ..one.clone() };
    assert_eq!(store.add_push_jobs(&[one.clone(), again.clone(), two.clone()]).await.unwrap(), 2);
    assert_eq!(store.add_push_jobs(&[again]).await.unwrap(), 0);
    assert!(store.claim_push_jobs(Timestamp(999), LEASE, 10).await.unwrap().is_empty());
    let claimed = store.claim_push_jobs(Timestamp(2000), LEASE, 1).await.unwrap();
    assert_eq!((claimed.len(), &claimed[0].job, claimed[0].attempts), (1, &one, 1));
    let claimed = store.claim_push_jobs(Timestamp(2000), LEASE, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|claimed| &claimed.job).collect::<Vec<_>>(), [&two]);
    assert!(store.claim_push_jobs(Timestamp(2001), LEASE, 10).await.unwrap().is_empty());
    let after = Timestamp(2000).plus(LEASE);
    let claimed = store.claim_push_jobs(after, LEASE, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|claimed| claimed.attempts).collect::<Vec<_>>(), [2, 2], "whoever does not end a job loses it");
}

#[tokio::test]
async fn an_ended_job_is_never_due_again_and_a_failed_one_when_it_says() {
    let store = store();
    let (user, at) = (UserId::from(Uuid::now_v7()), Timestamp(1000));
    let (sent, failed, lost) = (job(user, at), job(user, at), job(user, at));
    store.add_push_jobs(&[sent.clone(), failed.clone(), lost.clone()]).await.unwrap();
    assert_eq!(store.claim_push_jobs(at, LEASE, 10).await.unwrap().len(), 3);
    let results = [(sent.id, PushOutcome::Sent, None), (failed.id, PushOutcome::Failed, Some(Timestamp(5000))), (lost.id, PushOutcome::Failed, None)];
    store.finish_push_jobs(&results, Timestamp(1500)).await.unwrap();
    store.finish_push_jobs(&[(sent.id, PushOutcome::Failed, Some(Timestamp(1600)))], Timestamp(1600)).await.unwrap();
    assert!(store.claim_push_jobs(Timestamp(4999), LEASE, 10).await.unwrap().is_empty());
    let due = store.claim_push_jobs(Timestamp(9_000_000), LEASE, 10).await.unwrap();
    assert_eq!(due.iter().map(|due| (due.job.id, due.attempts)).collect::<Vec<_>>(), [(failed.id, 2)]);
    let log = store.push_log(user, 10).await.unwrap();
    let ends: Vec<_> = [&sent, &failed, &lost]
        .map(|job| log.iter().find(|entry| entry.device_id == job.device).map(|entry| (entry.outcome, entry.finished_at)).unwrap())
        .to_vec();
    let end = Some(Timestamp(1500));
    assert_eq!(ends, [(Some(PushOutcome::Sent), end), (None, None), (Some(PushOutcome::Failed), end)]);
    assert_eq!(store.push_log(user, 2).await.unwrap().len(), 2);
}
