use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    conformance::world::{HOUR, World, new_group, now},
    ids::{DeviceId, MessageId, PushJobId, Seq, UserId},
    model::{NewPushJob, PushJob, PushOutcome},
    ports::Store,
    time::Timestamp,
};

const LEASE: Duration = Duration::from_secs(60);

fn job(user: UserId) -> NewPushJob {
    NewPushJob {
        id: PushJobId::from(Uuid::now_v7()),
        user,
        device: DeviceId::from(Uuid::now_v7()),
        conversation: new_group(user, &[]).id,
        seq: Seq(2),
        message: MessageId::from(Uuid::now_v7()),
        sender: user,
        at: now(),
    }
}

/// The jobs of this user among all that are due: other cases leave some behind.
async fn claim(world: &World, user: UserId, at: Timestamp) -> Vec<PushJob> {
    let mut claimed = Vec::new();
    loop {
        let page = world.claim_push_jobs(at, LEASE, 1000).await.unwrap();
        let more = page.len() == 1000;
        claimed.extend(page.into_iter().filter(|claimed| claimed.job.user == user));
        if !more {
            return claimed;
        }
    }
}

/// A dispatch that is repeated makes no second push (I11), also not after the first one was sent.
pub async fn a_job_is_made_once_per_device_and_message(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let first = job(user);
    let repeat = NewPushJob { id: PushJobId::from(Uuid::now_v7()), at: now(), ..first.clone() };
    let other_device = NewPushJob { id: PushJobId::from(Uuid::now_v7()), device: DeviceId::from(Uuid::now_v7()), ..first.clone() };
    let other_message = NewPushJob { id: PushJobId::from(Uuid::now_v7()), message: MessageId::from(Uuid::now_v7()), ..first.clone() };
    assert_eq!(world.add_push_jobs(&[first.clone(), repeat.clone(), other_device.clone()]).await.unwrap(), 2);
    assert_eq!(world.add_push_jobs(&[repeat.clone(), other_message.clone(), first.clone()]).await.unwrap(), 1);
    assert_eq!(world.add_push_jobs(&[]).await.unwrap(), 0);
    let claimed = claim(&world, user, now()).await;
    assert_eq!(claimed.len(), 3);
    for job in [&first, &other_device, &other_message] {
        assert!(claimed.iter().any(|claimed| claimed.job == *job), "{job:?}");
    }
    let sent: Vec<_> = claimed.iter().map(|claimed| (claimed.job.id, PushOutcome::Sent, None)).collect();
    world.finish_push_jobs(&sent, now()).await.unwrap();
    assert_eq!(world.add_push_jobs(&[repeat]).await.unwrap(), 0, "the job is remembered when it is done");
}

/// A worker that dies loses its lease, not the job; the tries are counted.
pub async fn a_claimed_job_is_leased_and_comes_back_when_the_lease_is_over(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let jobs = [job(user), job(user), job(user)];
    world.add_push_jobs(&jobs).await.unwrap();
    let at = now();
    let first = claim(&world, user, at).await;
    assert_eq!(first.iter().map(|claimed| claimed.attempts).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(claim(&world, user, at).await, []);
    assert_eq!(claim(&world, user, at.plus(LEASE - Duration::from_millis(1))).await, []);
    let again = claim(&world, user, at.plus(LEASE)).await;
    assert_eq!(again.iter().map(|claimed| claimed.attempts).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(again.iter().map(|claimed| claimed.job.id).collect::<HashSet<_>>(), jobs.iter().map(|job| job.id).collect());
    let done: Vec<_> = again.iter().map(|claimed| (claimed.job.id, PushOutcome::Read, None)).collect();
    world.finish_push_jobs(&done, at).await.unwrap();
}

/// Two workers never hold the same job.
pub async fn racing_claims_share_the_jobs(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let jobs: Vec<NewPushJob> = (0..60).map(|_| job(user)).collect();
    world.add_push_jobs(&jobs).await.unwrap();
    let at = now();
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let world = world.clone();
        tasks.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = world.claim_push_jobs(at, LEASE, 7).await.unwrap();
                assert!(claimed.len() <= 7);
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed.into_iter().filter(|claimed| claimed.job.user == user).map(|claimed| claimed.job.id));
            }
        });
    }
    let claimed: Vec<PushJobId> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 60);
    assert_eq!(claimed.iter().copied().collect::<HashSet<_>>(), jobs.iter().map(|job| job.id).collect());
    world.finish_push_jobs(&claimed.iter().map(|id| (*id, PushOutcome::Sent, None)).collect::<Vec<_>>(), at).await.unwrap();
}

/// `Failed` with a time is another try then; without one, and every other outcome, is the end.
pub async fn a_failed_job_is_due_again_and_an_ended_one_never(store: Arc<dyn Store>) {
    let world = World(store);
    let user = world.user().await;
    let [retried, given_up, refused] = [job(user), job(user), job(user)];
    world.add_push_jobs(&[retried.clone(), given_up.clone(), refused.clone()]).await.unwrap();
    let at = now();
    assert_eq!(claim(&world, user, at).await.len(), 3);
    let later = at.plus(Duration::from_secs(5));
    let results =
        [(retried.id, PushOutcome::Failed, Some(later)), (given_up.id, PushOutcome::Failed, None), (refused.id, PushOutcome::Refused, None)];
    world.finish_push_jobs(&results, at).await.unwrap();
    assert_eq!(claim(&world, user, at).await, []);
    let again = claim(&world, user, later).await;
    assert_eq!(again, [PushJob { job: retried.clone(), attempts: 2 }]);
    world
        .finish_push_jobs(&[(retried.id, PushOutcome::Sent, None), (PushJobId::from(Uuid::now_v7()), PushOutcome::Sent, None)], later)
        .await
        .unwrap();
    assert_eq!(claim(&world, user, later.plus(HOUR)).await, []);
    let log = world.push_log(user, 10).await.unwrap();
    let outcome = |job: &NewPushJob| {
        let entry = log.iter().find(|entry| entry.device_id == job.device).unwrap();
        (entry.outcome, entry.attempts, entry.finished_at)
    };
    assert_eq!(outcome(&retried), (Some(PushOutcome::Sent), 2, Some(later)));
    assert_eq!(outcome(&given_up), (Some(PushOutcome::Failed), 1, Some(at)));
    assert_eq!(outcome(&refused), (Some(PushOutcome::Refused), 1, Some(at)));
}

/// Everybody has an own log; what is not done yet is in it too.
pub async fn the_push_log_names_the_newest_first(store: Arc<dyn Store>) {
    let world = World(store);
    let [user, other] = world.users_of().await;
    let jobs = [job(user), job(user), job(user)];
    world.add_push_jobs(&jobs).await.unwrap();
    world.add_push_jobs(&[job(other)]).await.unwrap();
    let log = world.push_log(user, 10).await.unwrap();
    assert_eq!(log.iter().map(|entry| entry.device_id).collect::<Vec<_>>(), [jobs[2].device, jobs[1].device, jobs[0].device]);
    let newest = &log[0];
    assert_eq!((newest.user_id, newest.conversation_id, newest.seq, newest.created_at), (user, jobs[2].conversation, Seq(2), jobs[2].at));
    assert_eq!((newest.outcome, newest.attempts, newest.finished_at), (None, 0, None));
    assert_eq!(world.push_log(user, 2).await.unwrap(), log[..2]);
    assert_eq!(world.push_log(world.user().await, 10).await.unwrap(), []);
    let all: Vec<_> = claim(&world, user, now()).await.iter().map(|claimed| (claimed.job.id, PushOutcome::Unwanted, None)).collect();
    world.finish_push_jobs(&all, now()).await.unwrap();
}
