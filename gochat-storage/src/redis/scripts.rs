//! What has to be decided where the value is. Each script takes many keys; in a Cluster all of one slot.
//!
//! Time is the server's own (`TIME`): no caller's clock takes part in a lease.

use std::sync::OnceLock;

use redis::{Cmd, cmd};

/// A script and what the server knows it by.
pub(super) struct Script {
    text: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    const fn new(text: &'static str) -> Self {
        Script { text, hash: OnceLock::new() }
    }

    fn hash(&self) -> &str {
        self.hash.get_or_init(|| redis::Script::new(self.text).get_hash().to_owned())
    }
}

/// KEYS: users. ARGV: lease in ms, then for each route the place of its key, device, epoch, and "connection gateway".
/// Answers 1 for each route that is there now, 0 where a newer epoch lives.
///
/// A field is `epoch (20 digits) · end of the lease in ms (16 digits) · connection gateway`.
pub(super) static ATTACH: Script = Script::new(
    r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = now + ARGV[1]
local answers = {}
for i = 2, #ARGV, 4 do
    local key, device, epoch = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]
    local longest, taken = ends, false
    local all = redis.call('HGETALL', key)
    for f = 1, #all, 2 do
        local lease = tonumber(string.sub(all[f + 1], 21, 36))
        if not lease or lease <= now then
            redis.call('HDEL', key, all[f])
        else
            if lease > longest then longest = lease end
            if all[f] == device and string.sub(all[f + 1], 1, 20) > epoch then taken = true end
        end
    end
    if taken then
        answers[#answers + 1] = 0
    else
        redis.call('HSET', key, device, epoch .. string.format('%016.0f', ends) .. ARGV[i + 3])
        redis.call('PEXPIREAT', key, string.format('%.0f', longest))
        answers[#answers + 1] = 1
    end
end
return answers
",
);

/// KEYS: users. ARGV: for each route the place of its key, device, epoch, and "connection gateway". Removes this very route;
/// answers 0 where a newer epoch lives.
pub(super) static DETACH: Script = Script::new(
    r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {}
for i = 1, #ARGV, 4 do
    local key, device, epoch = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]
    local answer = 1
    local all = redis.call('HGETALL', key)
    for f = 1, #all, 2 do
        local value = all[f + 1]
        local lease = tonumber(string.sub(value, 21, 36))
        if not lease or lease <= now then
            redis.call('HDEL', key, all[f])
        elseif all[f] == device then
            local present = string.sub(value, 1, 20)
            if present == epoch and string.sub(value, 37) == ARGV[i + 3] then
                redis.call('HDEL', key, device)
            elseif present > epoch then
                answer = 0
            end
        end
    end
    answers[#answers + 1] = answer
end
return answers
",
);

/// KEYS: users. Answers with place of the key, device and field of every route whose lease goes on.
pub(super) static LOCATE: Script = Script::new(
    r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {}
for k = 1, #KEYS do
    local all = redis.call('HGETALL', KEYS[k])
    for f = 1, #all, 2 do
        local lease = tonumber(string.sub(all[f + 1], 21, 36))
        if lease and lease > now then
            local n = #answers
            answers[n + 1], answers[n + 2], answers[n + 3] = k, all[f], all[f + 1]
        end
    end
end
return answers
",
);

/// KEYS: copies. ARGV: for each entry the place of its key, how long it lives in ms, and `version (20 digits) v bytes`. Kept
/// unless the same or a newer one is there, or a refusal of it.
pub(super) static SET: Script = Script::new(
    r"
for i = 1, #ARGV, 3 do
    local key, value = KEYS[tonumber(ARGV[i])], ARGV[i + 2]
    local present = redis.call('GETRANGE', key, 0, 20)
    local there, version = string.sub(present, 1, 20), string.sub(value, 1, 20)
    if present == '' or version > there or (version == there and string.sub(present, 21) == 'r') then
        redis.call('SET', key, value, 'PX', ARGV[i + 1])
    end
end
return 1
",
);

/// KEYS: copies. ARGV: how long older ones are refused in ms, then for each the place of its key and the version (20 digits).
/// What is older gives way to a refusal, `version (20 digits) r`. A copy that is not older refuses by being there; if it would
/// be gone too soon, its version's refusal takes its place.
pub(super) static INVALIDATE: Script = Script::new(
    r"
local refused = tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
    local key, version = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
    local present = redis.call('GETRANGE', key, 0, 20)
    local there = string.sub(present, 1, 20)
    if present == '' or there < version then
        redis.call('SET', key, version .. 'r', 'PX', refused)
    elseif redis.call('PTTL', key) < refused then
        redis.call('SET', key, there .. 'r', 'PX', refused)
    end
end
return 1
",
);

/// Brings every script to a server.
pub(super) fn load_all() -> impl Iterator<Item = Cmd> {
    [&ATTACH, &DETACH, &LOCATE, &SET, &INVALIDATE].into_iter().map(|script| {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(script.text);
        load
    })
}

/// A call of a script with these keys; its arguments follow.
pub(super) fn call(script: &Script, keys: &[String]) -> Cmd {
    let mut call = cmd("EVALSHA");
    call.arg(script.hash()).arg(keys.len()).arg(keys);
    call
}
