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
/// A line is `device (36) epoch (20 digits) end of the lease in ms (16 digits) connection gateway`. What is not of this form
/// has no lease and is dropped, as is a value of another type.
pub(super) static ATTACH: Script = Script::new(
    r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = now + ARGV[1]
local answers = {}
for i = 2, #ARGV, 4 do
    local key, device, epoch = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]
    local lines, longest, taken, dropped = {}, 0, false, false
    local present = redis.pcall('GET', key)
    if type(present) ~= 'string' then present = '' end
    for line in string.gmatch(present, '[^\n]+') do
        local lease = tonumber(string.sub(line, 59, 74))
        local same = string.sub(line, 1, 36) == device
        if not lease or lease <= now then
            dropped = true
        elseif not same or string.sub(line, 38, 57) > epoch then
            if same then taken = true end
            if lease > longest then longest = lease end
            lines[#lines + 1] = line
        end
    end
    if not taken then
        if ends > longest then longest = ends end
        lines[#lines + 1] = device .. ' ' .. epoch .. ' ' .. string.format('%016.0f', ends) .. ' ' .. ARGV[i + 3]
    end
    if dropped or not taken then
        redis.call('SET', key, table.concat(lines, '\n'))
        redis.call('PEXPIREAT', key, string.format('%.0f', longest))
    end
    answers[#answers + 1] = taken and 0 or 1
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
    local lines, longest, answer, dropped = {}, 0, 1, false
    local present = redis.pcall('GET', key)
    if type(present) ~= 'string' then present = '' end
    for line in string.gmatch(present, '[^\n]+') do
        local lease = tonumber(string.sub(line, 59, 74))
        local same, there = string.sub(line, 1, 36) == device, string.sub(line, 38, 57)
        if not lease or lease <= now or (same and there == epoch and string.sub(line, 76) == ARGV[i + 3]) then
            dropped = true
        else
            if same and there > epoch then answer = 0 end
            if lease > longest then longest = lease end
            lines[#lines + 1] = line
        end
    end
    if #lines == 0 then
        if dropped then redis.call('DEL', key) end
    elseif dropped then
        redis.call('SET', key, table.concat(lines, '\n'))
        redis.call('PEXPIREAT', key, string.format('%.0f', longest))
    end
    answers[#answers + 1] = answer
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
    [&ATTACH, &DETACH, &SET, &INVALIDATE].into_iter().map(|script| {
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
