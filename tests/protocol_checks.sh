#!/usr/bin/env bash
# Two checkers that know nothing of GoChat: the Autobahn cases on the connection loop (kosoku) and what the OpenAPI document
# lets one try on the HTTP routes (schemathesis). Called by ./test.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

KOSOKU=0.1.0
SCHEMATHESIS=4.32.5
ECHO=127.0.0.1:19001
SERVER=127.0.0.1:19002
root=$PWD
venv=target/checkers
work=$(mktemp -d)
running=()
stop() {
    kill "${running[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

# reachable ADDRESS: waits until somebody listens there.
reachable() {
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null && return
        sleep 0.1
    done
    echo "nobody listens on $1" >&2
    return 1
}

[ -x $venv/bin/pip ] || python3 -m venv $venv
$venv/bin/pip install --quiet --disable-pip-version-check kosoku==$KOSOKU schemathesis==$SCHEMATHESIS
cargo build --quiet --workspace --bin gochat
cargo build --quiet -p gochat-transport --features echo --example echo

echo "-- Autobahn cases"
target/debug/examples/echo $ECHO &
running+=($!)
reachable $ECHO
# Not run: 9 (messages of up to 16 MB, which a chat refuses by design) and 12, 13 (compression, which is not offered).
$venv/bin/kosoku -m fuzzingclient -p 4 -x '9.*' -x '12.*' -x '13.*' -o "$work/autobahn" $ECHO
$venv/bin/python - "$work/autobahn/index.json" <<'PYTHON'
import json, sys
cases = {name: case for agent in json.load(open(sys.argv[1])).values() for name, case in agent.items()}
# NON-STRICT: text that is not UTF-8 in an unfinished message may be refused at its end, too.
failed = [name for name, case in cases.items() if case["behavior"] not in ("OK", "NON-STRICT", "INFORMATIONAL")]
assert len(cases) > 200, f"only {len(cases)} cases ran"
sys.exit(f"failed: {failed}" if failed else 0)
PYTHON

echo "-- OpenAPI"
GOCHAT_PASSWORDS_ITERATIONS=1000 GOCHAT_LIMITS_SIGN_INS_PER_MINUTE=1000000 GOCHAT_LIMITS_SIGN_INS_BURST=1000000 GOCHAT_LOG_LEVEL=warn \
    target/debug/gochat --listen $SERVER --data "$work/data" &
running+=($!)
reachable $SERVER
token=$(curl --silent --fail "http://$(cat "$work/data/admin-address")/admin/provision" \
    --header "Authorization: Bearer $(cat "$work/data/admin-token")" \
    --data '{"users":4,"prefix":"fuzz","pairs":true,"groups":[{"members":3}]}' |
    $venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["users"][0]["access_token"])')
check() {
    (cd "$work" && "$root/$venv/bin/schemathesis" --config-file "$root/tests/schemathesis.toml" run "http://$SERVER/api/v1/openapi.json" \
        --header "Authorization: Bearer $token" --no-color --workers 2 --seed 1 "$@")
}
# What ends the session comes last: behind it everything is 401. The WebSocket is not HTTP once it is open.
check --exclude-path /ws --exclude-path /auth/logout --exclude-path '/devices/{id}' --exclude-path /users/me/password --max-examples 30
check --include-path /auth/logout --include-path '/devices/{id}' --include-path /users/me/password --max-examples 10
curl --silent --fail "http://$SERVER/readyz" >/dev/null
