#!/usr/bin/env bash
# Runs all tests. Needs Rust and, on Debian, root: what else they use is installed here. The servers that they use are started
# by deploy/local.sh on its ports, with their data in target/test-servers.
#   ./test.sh          what every change must pass
#   ./test.sh --full   also more crash rounds, a longer overload and the licences of all dependencies
set -euo pipefail
cd "$(dirname "$0")"

full=
case "${1:-}" in
    "") ;;
    --full) full=yes ;;
    *) echo "usage: ./test.sh [--full]" >&2; exit 2 ;;
esac

# stage NAME COMMAND…: runs it, says how long it took, ends the script if it fails. (Within it `set -e` does not hold.)
stage() {
    local name=$1 began=$SECONDS
    shift
    echo "== $name"
    if ! "$@"; then
        echo "== $name FAILED after $((SECONDS - began)) s" >&2
        exit 1
    fi
    echo "== $name: $((SECONDS - began)) s"
}

install_needs() {
    local missing=()
    command -v chromium >/dev/null || missing+=(chromium)
    command -v chromedriver >/dev/null || missing+=(chromium-driver)
    command -v cc >/dev/null || missing+=(build-essential)
    command -v curl >/dev/null || missing+=(curl)
    command -v node >/dev/null || missing+=(nodejs)
    command -v npm >/dev/null || missing+=(npm)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" || return
    fi
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt || return
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
}

web() {
    (cd gochat-server/web && npm ci --silent --no-audit --no-fund && npm run --silent check && npm test --silent)
}

dependencies() {
    command -v cargo-deny >/dev/null || cargo install --locked cargo-deny || return
    cargo deny --all-features check bans licenses sources
}

# The real servers that the distributed parts are tested on: started before the tests, ended with this script however it ends.
servers=target/test-servers
servers_up() {
    trap 'deploy/local.sh down --data $servers || true' EXIT
    # What an earlier run left is not what this one tests.
    deploy/local.sh down --wipe --data $servers && deploy/local.sh up --servers-only --with-cluster --small --data $servers
}

stage "what the tests need" install_needs
stage "format" cargo fmt --all --check
stage "lint" cargo clippy --workspace --all-targets --quiet -- -D warnings
# What the start command builds: the default features alone.
stage "lint of the default build" cargo clippy --quiet -- -D warnings
stage "web chat: types and units" web
stage "the server" cargo build --workspace --bin gochat --quiet
if [ -n "$full" ]; then
    export GOCHAT_TEST_CRASHES=20 GOCHAT_TEST_OVERLOAD_SECONDS=20 GOCHAT_TEST_FAULT_ROUNDS=3
fi
stage "the servers: MariaDB, Redis, Kafka" servers_up
stage "unit, conformance, flow, browser and crash tests" cargo test --workspace --no-fail-fast
stage "protocol checkers" bash tests/protocol_checks.sh
if [ -n "$full" ]; then
    stage "dependencies" dependencies
fi
echo "== all passed in $SECONDS s"
