#!/usr/bin/env bash
# GoChat as four services on this machine, with real servers and without containers: MariaDB, Redis, Apache Kafka.
#
#   ./deploy/local.sh up [--servers-only] [--with-cluster] [--small] [--data DIR] [--base PORT] [--with NAME,…]
#   ./deploy/local.sh status | down [--wipe]                      [--data DIR]
#   ./deploy/local.sh start | stop | kill | pause | resume NAME   [--data DIR]
#   ./deploy/local.sh logs [-f] NAME                              [--data DIR]
#   ./deploy/local.sh install [--servers-only]
#
# up               installs what is missing, starts what does not run, waits until all of it is ready; may be repeated
#   --servers-only   the servers, none of our roles
#   --with-cluster   also a Redis Cluster of three nodes
#   --small          little memory and a fast start, for tests
#   --with           further instances of roles: logic-2,gateway-3
#   --buffer-pool    memory of MariaDB's pages (256M; 64M with --small)
#   --heap           memory of Kafka's Java (512m; 256m with --small)
# status           exit code 0 only if everything that `up` was asked for runs and is ready
# down             ends the roles, waits for their drain, ends the servers; --wipe also removes the folder
# kill             kill -9                     pause, resume   SIGSTOP, SIGCONT
#
# NAME: mariadb redis redis-cluster (or one node: redis-cluster-1) kafka repo logic task gateway-1 gateway-2;
# further ones of a role are logic-2 … logic-9, likewise repo, task, gateway.
#
# Everything lies in one folder (--data, ./gochat-local); what `up` was told is remembered there in local.conf.
# Logs and process ids: DIR/run/NAME.log, DIR/run/NAME.pid. Settings for all roles may stand in DIR/gochat.toml.
# The binary is $GOCHAT_BIN, or built from this repository. Kafka's jars are kept in ${XDG_CACHE_HOME:-~/.cache}/gochat.
#
# Ports, all on 127.0.0.1; N is the number in the name, 1 if there is none:
#
#                        default                       --base PORT
#   gateway-N            8080 + N                      PORT + N
#   admin of gateway-N   9080 + N (from 3: 9200 + N)   PORT + 10 + N
#            logic-N     9083 (9220 + N)               PORT + 20 + N
#            repo-N      9084 (9230 + N)               PORT + 30 + N
#            task-N      9085 (9240 + N)               PORT + 40 + N
#   gRPC of  logic-N     9183 (9320 + N)               PORT + 50 + N
#            repo-N      9184 (9330 + N)               PORT + 60 + N
#   MariaDB              13306                         PORT + 70
#   Redis                16379                         PORT + 71
#   Kafka, controller    19092, 19093                  PORT + 72, PORT + 73
#   Redis Cluster, bus   17000 + N, 18000 + N          PORT + 80 + N, PORT + 90 + N
set -euo pipefail
# The caller's folder is where relative paths begin; the repository is where this script lies.
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

START_SECONDS=90        # how long a part may take to be ready
DRAIN_SECONDS=20        # how long a role may take to end; it wants 10
STOP_SECONDS=60         # how long a server may take to end
HIGHEST_PORT=32767      # above it the kernel takes ports for connections of its own
SERVERS=(mariadb redis kafka)
CLUSTER=(redis-cluster-1 redis-cluster-2 redis-cluster-3)
ROLES=(repo logic task gateway-1 gateway-2)
KAFKA_CLUSTER_ID=MkU3OEVBNTcwNTJENDM2Qg

say() { echo "$*" >&2; }
die() { say "local.sh: $*"; exit 1; }
usage() { sed -n '2,/^set -euo/{/^#/!q;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

# --- what was asked for -------------------------------------------------------------------------------------------------

declare -A conf=([base]='' [servers_only]='' [cluster]='' [small]='' [with]='' [buffer_pool]='' [heap]='' [bin]='')
declare -A given=()
folder=gochat-local
names=()
follow='' wipe=''

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --servers-only) given[servers_only]=yes ;;
            --with-cluster) given[cluster]=yes ;;
            --small) given[small]=yes ;;
            --data | --base | --with | --buffer-pool | --heap)
                [ $# -ge 2 ] || die "$1 wants a value"
                case $1 in
                    --data) folder=$2 ;;
                    --buffer-pool) given[buffer_pool]=$2 ;;
                    *) given[${1#--}]=$2 ;;
                esac
                shift ;;
            --wipe) wipe=yes ;;
            -f) follow=yes ;;
            -h | --help) usage ;;
            -*) die "there is no option $1; see $0 --help" ;;
            *) names+=("$1") ;;
        esac
        shift
    done
}

# Remembered settings, unless this is an `up`, which says them anew (`up` without --base keeps the base, though: the data has it).
load_conf() {
    local key value
    if [ -f "$folder/local.conf" ]; then
        while IFS='=' read -r key value; do
            [ -n "${conf[$key]+known}" ] && conf[$key]=$value
        done <"$folder/local.conf"
    fi
    [ -z "${GOCHAT_BIN:-}" ] || conf[bin]=$(realpath "$GOCHAT_BIN")
    check_base "${conf[base]}"
}

save_conf() {
    local key
    for key in "${!conf[@]}"; do echo "$key=${conf[$key]}"; done | sort >"$folder/local.conf.new"
    mv "$folder/local.conf.new" "$folder/local.conf"
}

check_base() {
    [ -n "$1" ] || return 0
    if ! [[ $1 =~ ^[0-9]{4,5}$ ]] || [ "$1" -lt 1024 ] || [ $(($1 + 99)) -gt $HIGHEST_PORT ]; then
        die "--base is a port from 1024 to $((HIGHEST_PORT - 99))"
    fi
}

# --- names and ports ----------------------------------------------------------------------------------------------------

# canonical NAME: the one name that a part has (logic-1 is logic), or an end.
canonical() {
    case $1 in
        mariadb | redis | kafka | repo | logic | task) echo "$1" ;;
        redis-cluster-[1-3] | gateway-[1-9] | repo-[2-9] | logic-[2-9] | task-[2-9]) echo "$1" ;;
        repo-1 | logic-1 | task-1) echo "${1%-1}" ;;
        *) die "there is no part $1; see $0 --help" ;;
    esac
}

# expand NAME: the parts behind a name.
expand() {
    if [ "$1" = redis-cluster ]; then printf '%s\n' "${CLUSTER[@]}"; else canonical "$1"; fi
}

# kind_of NAME: what it is an instance of (gateway-2: gateway).
kind_of() { echo "${1%-[0-9]}"; }

# number_of NAME: which one it is.
number_of() { case $1 in *-[0-9]) echo "${1##*-}" ;; *) echo 1 ;; esac; }

is_role() { case $(kind_of "$1") in repo | logic | task | gateway) ;; *) return 1 ;; esac; }

# port NAME [admin|grpc|bus|controller]
port() {
    local n base=${conf[base]}
    n=$(number_of "$1")
    if [ -n "$base" ]; then
        case $(kind_of "$1")/${2:-} in
            gateway/) echo $((base + n)) ;;
            gateway/admin) echo $((base + 10 + n)) ;;
            logic/admin) echo $((base + 20 + n)) ;;
            repo/admin) echo $((base + 30 + n)) ;;
            task/admin) echo $((base + 40 + n)) ;;
            logic/grpc) echo $((base + 50 + n)) ;;
            repo/grpc) echo $((base + 60 + n)) ;;
            mariadb/) echo $((base + 70)) ;;
            redis/) echo $((base + 71)) ;;
            kafka/) echo $((base + 72)) ;;
            kafka/controller) echo $((base + 73)) ;;
            redis-cluster/) echo $((base + 80 + n)) ;;
            redis-cluster/bus) echo $((base + 90 + n)) ;;
        esac
        return
    fi
    case $(kind_of "$1")/${2:-}/$n in
        gateway//*) echo $((8080 + n)) ;;
        gateway/admin/[12]) echo $((9080 + n)) ;;
        gateway/admin/*) echo $((9200 + n)) ;;
        logic/admin/1) echo 9083 ;;
        logic/admin/*) echo $((9220 + n)) ;;
        repo/admin/1) echo 9084 ;;
        repo/admin/*) echo $((9230 + n)) ;;
        task/admin/1) echo 9085 ;;
        task/admin/*) echo $((9240 + n)) ;;
        logic/grpc/1) echo 9183 ;;
        logic/grpc/*) echo $((9320 + n)) ;;
        repo/grpc/1) echo 9184 ;;
        repo/grpc/*) echo $((9330 + n)) ;;
        mariadb//*) echo 13306 ;;
        redis//*) echo 16379 ;;
        kafka//*) echo 19092 ;;
        kafka/controller/*) echo 19093 ;;
        redis-cluster//*) echo $((17000 + n)) ;;
        redis-cluster/bus/*) echo $((18000 + n)) ;;
    esac
}

# ports NAME: every port it listens on.
ports() {
    case $(kind_of "$1") in
        gateway) port "$1" && port "$1" admin ;;
        logic | repo) port "$1" grpc && port "$1" admin ;;
        task) port "$1" admin ;;
        kafka) port "$1" && port "$1" controller ;;
        redis-cluster) port "$1" && port "$1" bus ;;
        *) port "$1" ;;
    esac
}

# wanted: the parts that `up` was asked for, in the order in which they start.
wanted() {
    local name kind
    printf '%s\n' "${SERVERS[@]}"
    [ -z "${conf[cluster]}" ] || printf '%s\n' "${CLUSTER[@]}"
    [ -z "${conf[servers_only]}" ] || return 0
    for kind in repo logic task gateway; do
        for name in "${ROLES[@]}" ${conf[with]//,/ }; do
            name=$(canonical "$name")
            [ "$(kind_of "$name")" != $kind ] || echo "$name"
        done
    done
}

# present: wanted parts, and others that were started by name.
present() {
    local file
    wanted
    for file in "$folder"/run/*.pid; do
        [ -e "$file" ] && basename "$file" .pid
    done
    true
}

parts() { present | awk '!seen[$0]++'; }

# urls ROLE: http addresses of every instance that is there, separated by commas.
urls() {
    local name list=''
    for name in $(parts); do
        [ "$(kind_of "$name")" != "$1" ] || list+=,http://127.0.0.1:$(port "$name" grpc)
    done
    echo "${list:1}"
}

# --- processes ----------------------------------------------------------------------------------------------------------

# stat_of PID: state and start time of a process, nothing if there is none.
stat_of() {
    local line
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
    # The name in the second field may hold anything; what follows its last bracket does not.
    awk '{print $1, $20}' <<<"${line##*) }"
}

# pid NAME: its process, if it lives. The start time tells it from another process that got the same id later.
pid() {
    local id since state now
    { read -r id <"$folder/run/$1.pid" && read -r since <"$folder/run/$1.since"; } 2>/dev/null || return 1
    read -r state now < <(stat_of "$id") || return 1
    [ "$now" = "$since" ] && [ "$state" != Z ] && echo "$id"
}

is_paused() {
    local id state rest
    id=$(pid "$1") && read -r state rest < <(stat_of "$id") && [ "$state" = T ]
}

# launch NAME COMMAND…: starts it in a session of its own, with its output in its log.
launch() {
    local name=$1 log=$folder/run/$1.log id state since
    shift
    if [ -f "$log" ] && [ "$(stat -c %s "$log")" -gt 16777216 ]; then mv "$log" "$log.1"; fi
    echo "== $(date -u +%FT%TZ) start" >>"$log"
    setsid "$@" </dev/null >>"$log" 2>&1 9>&- &
    id=$!
    read -r state since < <(stat_of "$id") || die "$name ended at once; its log: $log"
    echo "$since" >"$folder/run/$name.since"
    echo "$id" >"$folder/run/$name.pid"
    disown "$id"
}

# gone NAME SECONDS: waits until its process has ended.
gone() {
    local until=$((SECONDS + $2))
    while pid "$1" >/dev/null; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.05
    done
}

forget() { rm -f "$folder/run/$1.pid" "$folder/run/$1.since"; }

signal() {
    local id
    id=$(pid "$2") || return 1
    kill "-$1" "$id"
}

# end NAME…: SIGTERM to all, then waits for all; what does not end is killed, and that is said.
end() {
    local name limit
    for name in "$@"; do
        signal TERM "$name" || continue
        # A paused process hears nothing before it goes on.
        signal CONT "$name" || true
    done
    for name in "$@"; do
        if is_role "$name"; then limit=$DRAIN_SECONDS; else limit=$STOP_SECONDS; fi
        if ! gone "$name" $limit; then
            say "$name did not end within $limit s: killed"
            signal KILL "$name" || true
            gone "$name" 10 || die "$name cannot be killed"
        fi
        forget "$name"
    done
}

tell_why() {
    say "-- the end of $folder/run/$1.log:"
    tail -n 20 "$folder/run/$1.log" >&2 || true
}

# await_ready NAME…
await_ready() {
    local name why until
    for name in "$@"; do
        until=$((SECONDS + START_SECONDS))
        until why=$(ready "$name"); do
            if ! pid "$name" >/dev/null; then
                tell_why "$name"
                die "$name ended while it started"
            fi
            if [ $SECONDS -ge $until ]; then
                tell_why "$name"
                die "$name was not ready within $START_SECONDS s: $why"
            fi
            sleep 0.1
        done
    done
}

# --- whether a part is ready: silence and 0, or what it waits for ---------------------------------------------------------

ready() {
    case $(kind_of "$1") in
        mariadb) ready_mariadb ;;
        redis) [ "$(redis_cli redis ping)" = PONG ] || { echo "does not answer"; return 1; } ;;
        redis-cluster) redis_cli "$1" cluster info | grep -q '^cluster_state:ok' || { echo "the cluster is not whole"; return 1; } ;;
        kafka) ready_kafka ;;
        *) ready_role "$1" ;;
    esac
}

redis_cli() {
    local name=$1
    shift
    timeout 2 redis-cli -h 127.0.0.1 -p "$(port "$name")" "$@" 2>&1 || true
}

ready_mariadb() {
    timeout 3 mariadb-admin --no-defaults --protocol=tcp -h127.0.0.1 -P"$(port mariadb)" -uim -pim --connect-timeout=2 --silent ping >/dev/null 2>&1 ||
        { echo "does not answer"; return 1; }
}

# Asks for the versions that it speaks (ApiVersions, version 0): it answers only once it serves.
ready_kafka() {
    local answer
    # shellcheck disable=SC2016 # the inner shell expands
    answer=$(timeout 2 bash -c '
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf "\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff" >&3
        head -c 10 <&3 | od -An -v -tx1 | tr -d " \n"' - "$(port kafka)" 2>/dev/null) || true
    # Length, the request's number, error code 0.
    [[ $answer =~ ^.{8}000000010000$ ]] || { echo "does not answer"; return 1; }
}

ready_role() {
    local answer code
    answer=$(curl --silent --max-time 2 --write-out '\n%{http_code}' "http://127.0.0.1:$(port "$1" admin)/readyz") || { echo "waits for its admin listener"; return 1; }
    code=${answer##*$'\n'}
    [ "$code" = 200 ] && return
    if [[ $answer =~ \"waits_for\"\ *:\ *\"([^\"]*)\" ]]; then echo "waits for ${BASH_REMATCH[1]}"; else echo "answers $code"; fi
    return 1
}

# --- servers --------------------------------------------------------------------------------------------------------------

start_mariadb() {
    local home=$folder/mariadb user=() log_file=256M
    [ "$(id -u)" != 0 ] || user=(--user=root)
    [ -z "${conf[small]}" ] || log_file=64M
    if [ ! -d "$home/data" ]; then
        # Made beside and moved, so that half of a database is never taken for one.
        rm -rf "$home/data.new"
        mkdir -p "$home"
        mariadb-install-db --no-defaults --datadir="$home/data.new" "${user[@]}" --skip-test-db \
            --innodb-log-file-size=16M --innodb-buffer-pool-size=32M >"$folder/run/mariadb-install.log" 2>&1 ||
            { tail -n 20 "$folder/run/mariadb-install.log" >&2; die "MariaDB's folder cannot be made"; }
        mv "$home/data.new" "$home/data"
    fi
    # Read at each start, before the first connection.
    cat >"$home/init.sql" <<'SQL'
CREATE DATABASE IF NOT EXISTS gochat CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS im@'127.0.0.1' IDENTIFIED BY 'im';
GRANT ALL ON *.* TO im@'127.0.0.1';
SQL
    # The socket is relative to the data folder: its full path may be longer than a socket's may be.
    launch mariadb mariadbd --no-defaults "${user[@]}" --datadir="$home/data" --init-file="$home/init.sql" \
        --bind-address=127.0.0.1 --port="$(port mariadb)" --socket=mariadb.sock --pid-file="$home/data/mariadb.pid" \
        --skip-name-resolve --max-connections=200 --character-set-server=utf8mb4 --transaction-isolation=READ-COMMITTED \
        --innodb-flush-log-at-trx-commit=1 --innodb-flush-method=O_DIRECT --innodb-log-file-size=$log_file \
        --innodb-buffer-pool-size="${conf[buffer_pool]}" --performance-schema=OFF
}

# What is kept here may be lost: routes and copies.
start_redis() {
    local name=$1 home=$folder/$1
    shift
    mkdir -p "$home"
    launch "$name" redis-server --bind 127.0.0.1 --port "$(port "$name")" --dir "$home" --save '' --appendonly no \
        --maxmemory 256mb --maxmemory-policy noeviction "$@"
}

start_cluster_node() {
    start_redis "$1" --cluster-enabled yes --cluster-port "$(port "$1" bus)" --cluster-node-timeout 2000
}

# form_cluster: makes one cluster of the three nodes, once. Nodes that were not made one do not know each other yet.
form_cluster() {
    local node addresses=()
    [ ! -f "$folder/run/cluster-formed" ] || return 0
    for node in "${CLUSTER[@]}"; do
        addresses+=("127.0.0.1:$(port "$node")")
        local until=$((SECONDS + START_SECONDS))
        until [ "$(redis_cli "$node" ping)" = PONG ]; do
            pid "$node" >/dev/null || { tell_why "$node"; die "$node ended while it started"; }
            [ $SECONDS -lt $until ] || { tell_why "$node"; die "$node does not answer"; }
            sleep 0.1
        done
    done
    redis-cli --cluster create "${addresses[@]}" --cluster-replicas 0 --cluster-yes >"$folder/run/redis-cluster.log" 2>&1 ||
        { tail -n 20 "$folder/run/redis-cluster.log" >&2; die "the Redis Cluster cannot be formed"; }
    touch "$folder/run/cluster-formed"
}

start_kafka() {
    local home=$folder/kafka text jars
    # A few cores are shared with everything else: no threads of a large collector.
    local options=(-XX:+UseSerialGC)
    [ -z "${conf[small]}" ] || options+=(-XX:TieredStopAtLevel=1)
    jars=$(kafka_cache)/jars
    mkdir -p "$home"
    text=$(<"$repository/deploy/kafka/server.properties")
    text=${text//@PORT@/"$(port kafka)"}
    text=${text//@CONTROLLER_PORT@/"$(port kafka controller)"}
    echo "${text//@DATA@/"$home/data"}" >"$home/server.properties"
    if [ ! -f "$home/data/meta.properties" ]; then
        "$(java_command)" -Xmx128m -XX:TieredStopAtLevel=1 -cp "$jars/*" kafka.tools.StorageTool format --ignore-formatted \
            -t "$KAFKA_CLUSTER_ID" -c "$home/server.properties" >"$folder/run/kafka-format.log" 2>&1 ||
            { tail -n 20 "$folder/run/kafka-format.log" >&2; die "Kafka's folder cannot be made"; }
    fi
    launch kafka "$(java_command)" "-Xms${conf[heap]}" "-Xmx${conf[heap]}" "${options[@]}" -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true \
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true \
        '-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS' -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info \
        -cp "$jars/*" kafka.Kafka "$home/server.properties"
}

# --- roles ----------------------------------------------------------------------------------------------------------------

# binary: the path of gochat; built from this repository if none was named.
binary() {
    if [ -n "${conf[bin]}" ]; then
        [ -x "${conf[bin]}" ] || die "GOCHAT_BIN: ${conf[bin]} cannot be run"
        echo "${conf[bin]}"
        return
    fi
    command -v cargo >/dev/null || die "cargo is not there: install Rust (https://rustup.rs), or name a built binary in GOCHAT_BIN"
    say "building gochat (minutes the first time)"
    (cd "$repository" && cargo build --quiet --release --features distributed) >&2 || die "gochat does not build"
    echo "${CARGO_TARGET_DIR:-$repository/target}/release/gochat"
}

start_role() {
    local name=$1 bin=$2 kind variable settings=() arguments=()
    kind=$(kind_of "$name")
    mkdir -p "$folder/data/$name"
    chmod 0700 "$folder/data/$name"
    # Variables of this script and of tests are none of the binary's settings, which it would refuse.
    for variable in $(compgen -e | grep -E '^GOCHAT_(BIN$|TEST_)' || true); do settings+=(-u "$variable"); done
    settings+=(
        "GOCHAT_DATA=$folder/data/$name"
        "GOCHAT_SECRETS=$folder/secrets"
        "GOCHAT_ADMIN_LISTEN=127.0.0.1:$(port "$name" admin)"
        "GOCHAT_REDIS_URLS=redis://127.0.0.1:$(port redis)"
    )
    if [ "$kind" = repo ]; then
        settings+=("GOCHAT_STORE_URL=mysql://im:im@127.0.0.1:$(port mariadb)/gochat")
    else
        settings+=("GOCHAT_KAFKA_BROKERS=127.0.0.1:$(port kafka)" "GOCHAT_REPO_URLS=$(urls repo)")
    fi
    case $kind in
        repo | logic) settings+=("GOCHAT_GRPC_LISTEN=127.0.0.1:$(port "$name" grpc)") ;;
        gateway)
            settings+=("GOCHAT_LOGIC_URLS=$(urls logic)" "GOCHAT_GATEWAY_ID=$name" "GOCHAT_LISTEN=127.0.0.1:$(port "$name")") ;;
        task) settings+=("GOCHAT_LOGIC_URLS=$(urls logic)") ;;
    esac
    [ ! -f "$folder/gochat.toml" ] || arguments=(--config "$folder/gochat.toml")
    launch "$name" env "${settings[@]}" "$bin" "$kind" "${arguments[@]}"
}

# --- starting -------------------------------------------------------------------------------------------------------------

free_ports() {
    local number
    for number in $(ports "$1"); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$number") 2>/dev/null; then
            die "$1: port $number is taken by another process; another base makes room: --base PORT"
        fi
    done
}

# start NAME: unless it runs. One start of a part at a time.
start() {
    local name=$1
    exec 9>"$folder/run/$name.lock"
    flock 9
    if ! pid "$name" >/dev/null; then
        free_ports "$name"
        forget "$name"
        say "starting $name"
        case $(kind_of "$name") in
            mariadb) start_mariadb ;;
            redis) start_redis redis ;;
            redis-cluster)
                [ -f "$folder/run/cluster-formed" ] || rm -f "$folder/$name/nodes.conf"
                start_cluster_node "$name" ;;
            kafka) start_kafka ;;
            *)
                [ -n "$role_binary" ] || role_binary=$(binary)
                start_role "$name" "$role_binary" ;;
        esac
    fi
    exec 9>&-
}
role_binary='' # found or built once

up() {
    local key name servers=() roles=() base_before=${conf[base]} formerly
    mkdir -p "$folder/run"
    chmod 0700 "$folder"
    formerly=$(for name in $(parts); do pid "$name" || true; done)
    for key in servers_only cluster small with; do conf[$key]=${given[$key]:-}; done
    for name in ${conf[with]//,/ }; do
        canonical "$name" >/dev/null
        is_role "$name" || die "--with names roles, and $name is none"
    done
    [ -n "${GOCHAT_BIN:-}" ] || conf[bin]=
    conf[base]=${given[base]:-$base_before}
    check_base "${conf[base]}"
    if [ "${conf[base]}" != "$base_before" ]; then
        [ -z "$formerly" ] || die "$folder runs with other ports; end it first: $0 down --data $folder"
        # The nodes of a cluster remember each other's ports.
        rm -f "$folder/run/cluster-formed"
    fi
    conf[buffer_pool]=${given[buffer_pool]:-$([ -n "${conf[small]}" ] && echo 64M || echo 256M)}
    conf[heap]=${given[heap]:-$([ -n "${conf[small]}" ] && echo 256m || echo 512m)}
    for name in $(wanted); do
        if is_role "$name"; then roles+=("$name"); else servers+=("$name"); fi
    done
    install_needs
    save_conf
    for name in "${servers[@]}"; do start "$name"; done
    [ -z "${conf[cluster]}" ] || form_cluster
    await_ready "${servers[@]}"
    # One after the other: a role is ready when those that it calls are, and the first one makes the secrets.
    for name in "${roles[@]}"; do
        start "$name"
        await_ready "$name"
    done
    status
}

# --- the other commands -----------------------------------------------------------------------------------------------------

down() {
    local name gateways=() workers=() repos=() servers=()
    [ -d "$folder/run" ] || { say "nothing runs in $folder"; return; }
    for name in $(parts); do
        case $(kind_of "$name") in
            gateway) gateways+=("$name") ;;
            logic | task) workers+=("$name") ;;
            repo) repos+=("$name") ;;
            *) servers+=("$name") ;;
        esac
    done
    # Against the flow: whoever is called ends after whoever calls.
    end "${gateways[@]}"
    end "${workers[@]}"
    end "${repos[@]}"
    end "${servers[@]}"
    if [ -n "$wipe" ]; then
        [ -f "$folder/local.conf" ] || die "$folder was not made by this script: not removed"
        rm -rf "$folder"
    fi
}

address_of() {
    local name=$1
    case $(kind_of "$name") in
        gateway) echo "http://127.0.0.1:$(port "$name") admin :$(port "$name" admin)" ;;
        logic | repo) echo "grpc 127.0.0.1:$(port "$name" grpc) admin :$(port "$name" admin)" ;;
        task) echo "admin 127.0.0.1:$(port "$name" admin)" ;;
        *) echo "127.0.0.1:$(port "$name")" ;;
    esac
}

status() {
    local name id state why asked failed=0 chats=''
    asked=$(wanted)
    printf '%-16s %-36s %8s  %s\n' NAME ADDRESS PID STATE
    for name in $(parts); do
        id=$(pid "$name") || id=-
        if [ "$id" = - ]; then
            state=stopped
        elif is_paused "$name"; then
            state=paused
        elif why=$(ready "$name"); then
            state=ready
        else
            state="not ready: $why"
        fi
        [ "$state" = ready ] || ! grep -qx "$name" <<<"$asked" || failed=1
        [ "$(kind_of "$name")" != gateway ] || chats+=,http://127.0.0.1:$(port "$name")
        printf '%-16s %-36s %8s  %s\n' "$name" "$(address_of "$name")" "$id" "$state"
    done
    if [ -n "$chats" ]; then
        echo
        echo "chat:    ${chats:1}" | sed 's/,/  /g'
        echo "measure: gochat bench --url ${chats:1} --admin 127.0.0.1:$(port logic admin)" \
            "--admin-token \"\$(cat $(printf %q "$folder")/secrets/admin-token)\" --scenario p2p --verify"
    fi
    return $failed
}

# each COMMAND: does it to every part that was named.
each() {
    local command=$1 name part some all=()
    [ ${#names[@]} -gt 0 ] || die "$command wants a name; see $0 --help"
    [ -f "$folder/local.conf" ] || die "nothing was ever started in $folder; first: $0 up --data $folder"
    for name in "${names[@]}"; do
        some=$(expand "$name")
        for part in $some; do all+=("$part"); done
    done
    case $command in
        start)
            for part in "${all[@]}"; do start "$part"; done
            case " ${all[*]} " in *" redis-cluster-"*) start_rest_of_cluster ;; esac
            await_ready "${all[@]}" ;;
        stop) end "${all[@]}" ;;
        kill)
            for part in "${all[@]}"; do signal KILL "$part" || die "$part does not run"; done
            for part in "${all[@]}"; do
                gone "$part" 10 || die "$part cannot be killed"
                forget "$part"
            done ;;
        pause) for part in "${all[@]}"; do signal STOP "$part" || die "$part does not run"; done ;;
        resume) for part in "${all[@]}"; do signal CONT "$part" || die "$part does not run"; done ;;
        logs)
            for part in "${all[@]}"; do
                [ -f "$folder/run/$part.log" ] || die "$part has no log"
                if [ -n "$follow" ]; then tail -n 100 -F "$folder/run/$part.log"; else tail -n 200 "$folder/run/$part.log"; fi
            done ;;
    esac
}

# A cluster that was never formed needs all of its nodes for that.
start_rest_of_cluster() {
    local node
    if [ ! -f "$folder/run/cluster-formed" ]; then
        for node in "${CLUSTER[@]}"; do start "$node"; done
        form_cluster
    fi
}

# --- what has to be there ---------------------------------------------------------------------------------------------------

kafka_version() { sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$repository/deploy/kafka/pom.xml"; }

kafka_cache() {
    [ -n "${XDG_CACHE_HOME:-}${HOME:-}" ] || die "neither XDG_CACHE_HOME nor HOME is set: there is no place for Kafka's jars"
    echo "${XDG_CACHE_HOME:-$HOME/.cache}/gochat/kafka-$(kafka_version)"
}

have_jars() { [ -f "$(kafka_cache)/jars/kafka_2.13-$(kafka_version).jar" ]; }

# java_command: a Java of version 17 or newer, or nothing.
java_command() {
    local candidate
    for candidate in "${JAVA_HOME:-/nowhere}/bin/java" java; do
        command -v "$candidate" >/dev/null || continue
        if "$candidate" -version 2>&1 | awk -F'[".+-]' '/version/ {exit !($2 >= 17)}'; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

install_needs() {
    local missing=() still=() name
    command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null || missing+=(mariadb-server)
    command -v mariadb-admin >/dev/null || missing+=(mariadb-client)
    command -v redis-server >/dev/null || missing+=(redis-server)
    command -v redis-cli >/dev/null || missing+=(redis-tools)
    command -v curl >/dev/null || missing+=(curl ca-certificates)
    java_command >/dev/null || missing+=(default-jre-headless)
    have_jars || command -v mvn >/dev/null || missing+=(maven)
    if [ -z "${conf[servers_only]}${conf[bin]}" ]; then
        command -v cc >/dev/null && command -v make >/dev/null || missing+=(build-essential)
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        apt_install "${missing[@]}"
        for name in mariadbd mariadb-admin redis-server redis-cli curl; do command -v "$name" >/dev/null || still+=("$name"); done
        java_command >/dev/null || still+=("Java 17 or newer")
        [ ${#still[@]} -eq 0 ] || die "not there although installed: ${still[*]}"
    fi
    have_jars || fetch_kafka
}

# The packages' own services are not wanted: they are not started, and one that was not there before does not stay.
apt_install() {
    local policy=/usr/sbin/policy-rc.d log
    [ "$(id -u)" = 0 ] || die "missing: $*; install them (as root: $0 install)"
    command -v apt-get >/dev/null || die "missing: $*; this is no Debian, install what these packages hold by your own means"
    say "installing $*"
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 0755 $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    log=$(mktemp)
    apt-get update -qq >"$log" 2>&1 || { cat "$log" >&2; die "the package lists cannot be fetched"; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 ||
        { tail -n 40 "$log" >&2; die "cannot be installed: $*; all of it: $log"; }
    rm -f "$log"
    if [ "$(trap -p EXIT)" ]; then
        rm -f $policy
        trap - EXIT
    fi
}

# The jars come from Maven Central, their checksums are looked at, and a folder that is there is whole.
fetch_kafka() {
    local cache
    cache=$(kafka_cache)
    mkdir -p "$(dirname "$cache")"
    exec 8>"$cache.lock"
    flock 8
    if ! have_jars; then
        say "fetching Apache Kafka $(kafka_version) into $cache"
        rm -rf "$cache.new" "$cache"
        mvn --quiet --batch-mode --strict-checksums --file "$repository/deploy/kafka/pom.xml" \
            org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
            -DincludeScope=runtime "-DoutputDirectory=$cache.new/jars" >"$cache.log" 2>&1 ||
            { tail -n 20 "$cache.log" >&2; die "Kafka's jars cannot be fetched from Maven Central"; }
        mv "$cache.new" "$cache"
        have_jars || die "Maven has not fetched kafka_2.13-$(kafka_version).jar"
    fi
    exec 8>&-
}

main() {
    local command=${1:-}
    [ -n "$command" ] || usage
    shift
    read_arguments "$@"
    folder=$(realpath -m "$folder")
    case $command in
        up | down | status | install) [ ${#names[@]} -eq 0 ] || die "$command takes no name" ;;
    esac
    load_conf
    case $command in
        up) up ;;
        down) down ;;
        status) status ;;
        start | stop | kill | pause | resume | logs) each "$command" ;;
        install) conf[servers_only]=${given[servers_only]:-} && install_needs ;;
        -h | --help | help) usage ;;
        *) die "there is no command $command; see $0 --help" ;;
    esac
}

main "$@"
