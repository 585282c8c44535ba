//! `login`: password logins beside the bare hash rate, and what messages at a steady rate feel of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gochat_core::auth::PasswordSettings;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    Arguments, Fault,
    figures::Figures,
    http::Http,
    limits::Limits,
    load::{Load, Measured, Pace, Shape},
    pool::Pool,
    provision::{self, Crowd, PASSWORD, Wanted},
    target::Target,
};

/// Messages a second meanwhile, and who sends them.
const MESSAGES_PER_S: f64 = 2000.0;
const TALKERS: usize = 200;

pub async fn login(target: &Target, arguments: &Arguments, limits: &mut Limits) -> Result<Figures, Fault> {
    let clients = arguments.clients.unwrap_or(PasswordSettings::default().workers * 4).max(1);
    let hashes = limits.hashes().await?;
    let who = provision::provision(target, "l", Wanted { users: clients, ..Wanted::default() }).await?;
    // Who registered has the password already.
    for name in who.names.iter().filter(|_| target.admin().is_ok()) {
        target.admin()?.ask(Method::POST, &format!("/admin/users/{name}/password"), Some(json!({"password": PASSWORD}))).await?;
    }
    let crowd = provision::provision(target, "t", Wanted { users: TALKERS, pairs: true, group: false }).await?;
    let quiet = talk(target, arguments, &crowd)?;

    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut logins = JoinSet::new();
    for name in &who.names {
        let (address, name, done, stop) = (target.address(), name.clone(), done.clone(), stop.clone());
        logins.spawn(async move { keep_logging_in(address, &name, &done, &stop).await });
    }
    let (began, before) = (Instant::now(), done.load(Ordering::Relaxed));
    // The load has its own thread: this one serves the runtime.
    let busy = tokio::task::block_in_place(|| talk(target, arguments, &crowd))?;
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = logins.join_next().await {
        ended??;
    }

    let mut figures = Figures::of("login");
    figures.set("clients", clients);
    figures.number("logins_per_s", rate);
    figures.share(rate, Some(hashes));
    figures.number("acked_per_s", busy.acked as f64 / busy.seconds);
    figures.number("deliveries_per_s", busy.deliveries as f64 / busy.seconds);
    figures.set("ack_ms", busy.ack.value());
    figures.set("e2e_ms", busy.end_to_end.value());
    figures.set("ack_ms_without_logins", quiet.ack.value());
    figures.number("ack_p99_ratio", busy.ack.millis(0.99) / quiet.ack.millis(0.99));
    Ok(figures)
}

/// Messages at a steady rate.
fn talk(target: &Target, arguments: &Arguments, crowd: &Crowd) -> Result<Measured, Fault> {
    let form = arguments.protocol;
    let pace = Pace { rate: Some(MESSAGES_PER_S), ..super::talk::pace(arguments) };
    let mut pool = Pool::open(&target.addresses, form, &crowd.tokens())?;
    let usage = || target.usage();
    let (measured, _) = Load::new(form, Shape::Pairs { senders: TALKERS }, pace, crowd, &usage).run(&mut pool, "login")?;
    Ok(measured)
}

/// Signs the same device in, over and over.
async fn keep_logging_in(address: SocketAddr, name: &str, done: &AtomicU64, stop: &AtomicBool) -> Result<(), Fault> {
    let mut http = Http::connect(address).await?;
    let mut device = Value::Null;
    while !stop.load(Ordering::Relaxed) {
        let body = json!({"username": name, "password": PASSWORD, "device_id": device, "device_name": "bench"});
        let (status, answer) = http.post("/auth/login", None, &body).await?;
        match status {
            StatusCode::OK => {
                device = answer["device_id"].clone();
                done.fetch_add(1, Ordering::Relaxed);
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => return Err(format!("a login was refused: {answer}").into()),
        }
    }
    Ok(())
}
