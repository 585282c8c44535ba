//! Users and what they talk in: in bulk through the admin listener, or one by one as anybody could.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Fault, http::Http, progress, target::Target};

/// Users named in one request to invite them.
const INVITE_MAX: usize = 1000;
/// Of everybody who registers.
pub const PASSWORD: &str = "correct horse battery";

/// What is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub users: usize,
    /// 1:1s of the users 0 and 1, of 2 and 3, and so on.
    pub pairs: bool,
    /// One group of everybody.
    pub group: bool,
}

/// Users, each with a device, and their conversations.
pub struct Crowd {
    pub names: Vec<String>,
    pub tokens: Vec<String>,
    pub conversations: Vec<Uuid>,
}

impl Crowd {
    pub fn tokens(&self) -> Vec<&str> {
        self.tokens.iter().map(String::as_str).collect()
    }
}

/// Makes them on this server. `label` begins their names; no two runs share a name.
pub async fn provision(target: &Target, label: &str, wanted: Wanted) -> Result<Crowd, Fault> {
    let prefix = format!("{label}{:x}u", Uuid::now_v7().as_u128() >> 80 & 0xffff_ffff);
    match target.admin() {
        Ok(_) => in_bulk(target, &prefix, wanted).await,
        Err(_) => one_by_one(target, &prefix, wanted).await,
    }
}

async fn in_bulk(target: &Target, prefix: &str, wanted: Wanted) -> Result<Crowd, Fault> {
    let groups = if wanted.group { json!([{"members": wanted.users}]) } else { json!([]) };
    let body = json!({"users": wanted.users, "prefix": prefix, "pairs": wanted.pairs, "groups": groups});
    let made = target.admin()?.ask(Method::POST, "/admin/provision", Some(body)).await?;
    let mut crowd = Crowd { names: Vec::new(), tokens: Vec::new(), conversations: Vec::new() };
    for user in made["users"].as_array().into_iter().flatten() {
        crowd.names.push(text(&user["username"])?);
        crowd.tokens.push(text(&user["access_token"])?);
    }
    for conversation in made["conversations"].as_array().into_iter().flatten() {
        crowd.conversations.push(text(&conversation["id"])?.parse()?);
    }
    Ok(crowd)
}

async fn one_by_one(target: &Target, prefix: &str, wanted: Wanted) -> Result<Crowd, Fault> {
    let mut http = Http::connect(target.address()).await?;
    let mut crowd = Crowd { names: Vec::new(), tokens: Vec::new(), conversations: Vec::new() };
    let mut ids = Vec::with_capacity(wanted.users);
    let mut progress = progress::Line::new("registering");
    for number in 0..wanted.users {
        let name = format!("{prefix}{number}");
        post(&mut http, "/auth/register", None, &json!({"username": name, "password": PASSWORD})).await?;
        let session = post(&mut http, "/auth/login", None, &json!({"username": name, "password": PASSWORD, "device_name": "bench"})).await?;
        ids.push(text(&session["user"]["id"])?);
        crowd.tokens.push(text(&session["access_token"])?);
        crowd.names.push(name);
        progress.show(|| format!("{} of {} users", ids.len(), wanted.users));
    }
    if wanted.pairs {
        for (pair, token) in ids.chunks_exact(2).zip(crowd.tokens.chunks_exact(2)) {
            let made = post(&mut http, "/conversations", Some(&token[0]), &json!({"kind": "single", "participants": [pair[1]]})).await?;
            crowd.conversations.push(text(&made["id"])?.parse()?);
        }
    }
    if wanted.group {
        let token = Some(crowd.tokens[0].as_str());
        let mut pages = ids[1..].chunks(INVITE_MAX);
        let first = json!({"name": prefix, "participants": pages.next().unwrap_or_default(), "max_members": wanted.users.max(2)});
        let id = text(&post(&mut http, "/groups", token, &first).await?["id"])?;
        for page in pages {
            post(&mut http, &format!("/groups/{id}/members"), token, &json!({"user_ids": page})).await?;
        }
        crowd.conversations.push(id.parse()?);
    }
    Ok(crowd)
}

/// Posts until it is not refused for being too often.
async fn post(http: &mut Http, path: &str, token: Option<&str>, body: &Value) -> Result<Value, Fault> {
    loop {
        let (status, answer) = http.post(path, token, body).await?;
        if status.is_success() {
            return Ok(answer);
        }
        match answer["retry_after_ms"].as_u64() {
            Some(millis) => tokio::time::sleep(Duration::from_millis(millis.clamp(10, 60_000))).await,
            None => return Err(format!("POST {path}: {answer}").into()),
        }
    }
}

fn text(value: &Value) -> Result<String, Fault> {
    Ok(value.as_str().ok_or("the server's answer lacks a text")?.to_owned())
}
