#!/usr/bin/env bash
# Runs the whole mesh on this machine without Docker: Redis, Kafka and the five services as
# processes of their own. State, logs, process ids and ports are kept in $RAPPORT_RUN_DIR
# (.rapport/ of the clone), so that a restart goes on where it was.
#
#   stack.sh up               starts what is not running, and restarts what was rebuilt
#   stack.sh down             stops everything, in reverse order
#   stack.sh restart          both
#   stack.sh restart NAME     one of: redis kafka collector cleaner feature-store trainer scorer
#   stack.sh status           what runs, where it listens, whether it is ready
#   stack.sh logs [NAME..]    follows the logs
#
# A port is the default one, or the next free one, and stays the same from then on. To choose one
# yourself: RAPPORT_PORT_KAFKA=19092 stack.sh up (names: the RAPPORT_PORT_ lines of ports.env).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/dev/env.sh
. "$here/env.sh"

run=$RAPPORT_RUN_DIR
services=(collector cleaner feature-store trainer scorer)
everything=(redis kafka "${services[@]}")
host=127.0.0.1

say() { printf '%s\n' "$*"; }
fail() { printf 'stack: %s\n' "$*" >&2; exit 1; }

# --- ports -----------------------------------------------------------------------------------

port_names=(REDIS KAFKA KAFKA_CONTROLLER COLLECTOR COLLECTOR_HTTP COLLECTOR_ADMIN CLEANER CLEANER_ADMIN
  FEATURE_STORE FEATURE_STORE_HTTP FEATURE_STORE_ADMIN TRAINER TRAINER_ADMIN SCORER SCORER_ADMIN)

default_port() {
  case $1 in
    REDIS) echo 6379 ;; KAFKA) echo 9092 ;; KAFKA_CONTROLLER) echo 9093 ;;
    COLLECTOR) echo 7101 ;; COLLECTOR_HTTP) echo 7102 ;; COLLECTOR_ADMIN) echo 7103 ;;
    CLEANER) echo 7201 ;; CLEANER_ADMIN) echo 7203 ;;
    FEATURE_STORE) echo 7301 ;; FEATURE_STORE_HTTP) echo 7302 ;; FEATURE_STORE_ADMIN) echo 7303 ;;
    TRAINER) echo 7401 ;; TRAINER_ADMIN) echo 7403 ;;
    SCORER) echo 7501 ;; SCORER_ADMIN) echo 7503 ;;
  esac
}

# The process that a port belongs to.
owner_of() {
  case $1 in
    REDIS) echo redis ;; KAFKA*) echo kafka ;; COLLECTOR*) echo collector ;; CLEANER*) echo cleaner ;;
    FEATURE_STORE*) echo feature-store ;; TRAINER*) echo trainer ;; SCORER*) echo scorer ;;
  esac
}

port() { local name="RAPPORT_PORT_$1"; echo "${!name}"; }

taken() { (exec 3<>"/dev/tcp/$host/$1") 2>/dev/null; }

# Keeps what was chosen before; chooses for the rest, and again where another program has come.
choose_ports() {
  local name variable asked kept used=" " wanted
  local -A saved=()
  if [ -f "$run/ports.env" ]; then
    while IFS='=' read -r name wanted; do
      case $name in RAPPORT_PORT_*) [[ $wanted =~ ^[0-9]+$ ]] && saved[$name]=$wanted ;; esac
    done <"$run/ports.env"
  fi
  for name in "${port_names[@]}"; do
    variable="RAPPORT_PORT_$name"
    asked=${!variable:-}
    kept=${saved[$variable]:-}
    if running "$(owner_of "$name")" && [ -n "$kept" ]; then
      wanted=$kept
    elif [ -n "$asked" ]; then
      wanted=$asked
      taken "$wanted" && fail "port $wanted ($variable) is taken by another program"
    else
      wanted=${kept:-$(default_port "$name")}
      while taken "$wanted" || [[ $used == *" $wanted "* ]]; do wanted=$((wanted + 1)); done
    fi
    used="$used$wanted "
    printf -v "$variable" '%s' "$wanted"
  done
  {
    echo "# Where everything listens. Made by stack.sh; rapportctl reads it."
    echo "RAPPORT_KAFKA_BROKERS=$host:$(port KAFKA)"
    echo "RAPPORT_REDIS_URL=redis://$host:$(port REDIS)"
    echo "RAPPORT_COLLECTOR=http://$host:$(port COLLECTOR)"
    echo "RAPPORT_FEATURE_STORE=http://$host:$(port FEATURE_STORE)"
    echo "RAPPORT_TRAINER=http://$host:$(port TRAINER)"
    echo "RAPPORT_SCORER=http://$host:$(port SCORER)"
    echo "RAPPORT_OFFLINE_URL=$run/data/offline"
    echo "RAPPORT_TENANT=demo"
    echo "RAPPORT_API_KEY=dev-key"
    for name in "${port_names[@]}"; do echo "RAPPORT_PORT_$name=$(port "$name")"; done
  } >"$run/ports.env.new"
  mv "$run/ports.env.new" "$run/ports.env"
}

load_ports() {
  [ -f "$run/ports.env" ] || return 1
  local name value
  while IFS='=' read -r name value; do
    case $name in RAPPORT_PORT_*) printf -v "$name" '%s' "$value" ;; esac
  done <"$run/ports.env"
}

# --- processes -------------------------------------------------------------------------------

# A pid file holds the process id, its start time, and a digest of what it was started with: a
# recycled id has another start time, so nothing that is not ours is ever taken for ours.
started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

pid_of() {
  local pid since _
  [ -f "$run/pid/$1" ] || return 1
  read -r pid since _ <"$run/pid/$1" || return 1
  [ -n "$since" ] && [ "$(started_at "$pid")" = "$since" ] || return 1
  # Ended, but not yet collected by its parent.
  case $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) in Z* | '') return 1 ;; esac
  echo "$pid"
}

running() { pid_of "$1" >/dev/null; }

digest_of() { [ -f "$run/pid/$1" ] && cut -d' ' -f3 "$run/pid/$1"; }

# start NAME DIGEST COMMAND..: in a session of its own, so that an interrupt here does not reach it.
start() {
  local name=$1 digest=$2 pid
  shift 2
  [ -f "$run/log/$name.log" ] && mv "$run/log/$name.log" "$run/log/$name.log.1"
  # 9 is the lock of this script: no process that stays may hold it.
  setsid "$@" >"$run/log/$name.log" 2>&1 </dev/null 9>&- &
  pid=$!
  disown "$pid"
  echo "$pid $(started_at "$pid") $digest" >"$run/pid/$name"
}

# stop SECONDS NAME..: asks all of them, then waits for each, then insists.
stop() {
  local budget=$1 name pid deadline
  shift
  for name in "$@"; do
    pid=$(pid_of "$name") && kill -TERM "$pid" 2>/dev/null || true
  done
  deadline=$((SECONDS + budget))
  for name in "$@"; do
    while running "$name" && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.1; done
    if pid=$(pid_of "$name"); then
      say "  $name did not stop within $budget s: killed"
      kill -KILL "$pid" 2>/dev/null || true
      while running "$name"; do sleep 0.1; done
    fi
    rm -f "$run/pid/$name"
  done
}

# Shows why a process is not up, and ends.
give_up() {
  printf '\nstack: %s: %s. The end of %s:\n\n' "$1" "$2" "$run/log/$1.log" >&2
  tail -n 25 "$run/log/$1.log" >&2 || true
  printf '\nWhat is up stays up: make status, make logs, make down.\n' >&2
  exit 1
}

# wait_for SECONDS NAME CHECK..: until the check succeeds, the process dies, or time is up.
wait_for() {
  local budget=$1 name=$2 deadline=$((SECONDS + $1))
  shift 2
  until "$@"; do
    running "$name" || give_up "$name" "it ended"
    [ "$SECONDS" -lt "$deadline" ] || give_up "$name" "it was not ready within $budget s"
    sleep 0.1
  done
}

# The first line and the body of an HTTP answer, without needing curl.
http_get() {
  # shellcheck disable=SC2016 # the inner shell expands its own arguments
  timeout 3 bash -c '
    exec 3<>"/dev/tcp/$1/$2" && printf "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" "$3" "$1" >&3 && cat <&3
  ' _ "$host" "$1" "$2" 2>/dev/null | tr -d '\r'
}

admin_port() { local name=${1^^}; port "${name//-/_}_ADMIN"; }
service_ready() { [[ $(http_get "$(admin_port "$1")" /readyz | head -n 1) == *" 200 "* ]]; }
redis_ready() { [ "$(timeout 2 redis-cli -h "$host" -p "$(port REDIS)" ping 2>/dev/null)" = PONG ]; }
kafka_ready() { taken "$(port KAFKA)" && ctl topics ensure >/dev/null 2>&1; }
ctl() { timeout 30 "$run/bin/rapportctl" --address-file "$run/ports.env" "$@"; }

# --- what runs -------------------------------------------------------------------------------

start_redis() {
  command -v redis-server >/dev/null || fail "redis-server is missing: make setup"
  mkdir -p "$run/data/redis"
  # On disk as it happens (fsync every second): a restart keeps the online store.
  start redis "port$(port REDIS)" redis-server --bind "$host" --port "$(port REDIS)" --dir "$run/data/redis" \
    --appendonly yes --save '' --daemonize no --protected-mode yes
}

start_kafka() {
  [ -f "$RAPPORT_KAFKA_LIBS/.complete" ] || fail "Kafka's jars are missing: make setup"
  local dir="$run/data/kafka" id java
  mkdir -p "$dir"
  java=(java -Xmx512m -Xms256m "-Dlog4j2.configurationFile=$here/kafka/log4j2.properties" -cp "$RAPPORT_KAFKA_LIBS/*")
  cat >"$run/kafka.properties" <<EOF
# Made by stack.sh: one node that is broker and controller (KRaft).
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$host:$(port KAFKA_CONTROLLER)
listeners=PLAINTEXT://$host:$(port KAFKA),CONTROLLER://$host:$(port KAFKA_CONTROLLER)
advertised.listeners=PLAINTEXT://$host:$(port KAFKA)
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.segment.bytes=268435456
EOF
  if [ ! -f "$dir/meta.properties" ]; then
    # 16 random bytes in URL-safe base64, not beginning with a dash: that would read as an option.
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | cut -c1-22)
    "${java[@]}" kafka.tools.StorageTool format -t "$id" -c "$run/kafka.properties" --ignore-formatted \
      >"$run/log/kafka.log" 2>&1 9>&- || give_up kafka "its data folder could not be prepared"
  fi
  start kafka "port$(port KAFKA)" "${java[@]}" kafka.Kafka "$run/kafka.properties"
}

# A key for hashing direct identifiers, made once: with another one, known customers are strangers.
hash_key() {
  if [ ! -s "$run/hash-key" ]; then
    (umask 077 && printf 'dev-%s\n' "$(head -c 24 /dev/urandom | base64 | tr -d '+/=')" >"$run/hash-key.new")
    mv "$run/hash-key.new" "$run/hash-key"
  fi
  cat "$run/hash-key"
}

service_environment() {
  local name=${1^^}
  name=${name//-/_}
  echo "RAPPORT_GRPC_ADDR=$host:$(port "$name")"
  echo "RAPPORT_ADMIN_ADDR=$host:$(port "${name}_ADMIN")"
  echo "RAPPORT_KAFKA_BROKERS=$host:$(port KAFKA)"
  echo "RAPPORT_REDIS_URL=redis://$host:$(port REDIS)"
  echo "RAPPORT_HASH_KEY=$(hash_key)"
  echo "RAPPORT_OFFLINE_URL=$run/data/offline"
  echo "RAPPORT_REGISTRY_DIR=$run/data/registry"
  echo "RAPPORT_DEFAULT_TENANT=demo"
  case $1 in
    collector)
      echo "RAPPORT_HTTP_ADDR=$host:$(port COLLECTOR_HTTP)"
      echo "RAPPORT_API_KEYS_FILE=$here/ingestion/keys.yaml"
      echo "RAPPORT_POLICIES=${RAPPORT_POLICIES:-$here/ingestion/policies}" ;;
    cleaner)
      echo "RAPPORT_POLICIES=${RAPPORT_POLICIES:-$here/ingestion/policies}"
      echo "RAPPORT_INSTANCE_ID=dev" ;;
    # A name that stays: one that was killed takes its partitions up again at once.
    feature-store)
      echo "RAPPORT_INSTANCE_ID=dev"
      echo "RAPPORT_FEAST_HTTP_ADDR=$host:$(port FEATURE_STORE_HTTP)"
      echo "RAPPORT_PLACEMENTS=${RAPPORT_PLACEMENTS:-$here/serving/placements}"
      ;;
    trainer)
      echo "LD_LIBRARY_PATH=$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
      echo "ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-}" ;;
    scorer)
      echo "ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-}"
      echo "RAPPORT_PLACEMENTS=${RAPPORT_PLACEMENTS:-$here/serving/placements}" ;;
  esac
}

# What a service runs with, in one word: another binary or another setting means a restart.
service_digest() {
  { service_environment "$1"; sha256sum <"$run/bin/rapport-$1"; } | sha256sum | cut -c1-16
}

start_service() {
  local settings=()
  mapfile -t settings < <(service_environment "$1")
  # The group ids are each service's own defaults, whatever the caller's shell has set.
  start "$1" "$(service_digest "$1")" env -u RAPPORT_GROUP_ID -u RAPPORT_GRPC_ADDR "${settings[@]}" "$run/bin/rapport-$1"
}

# Copies what cargo built; a running binary is replaced, not written into.
install_binaries() {
  local name built
  for name in rapportctl "${services[@]/#/rapport-}"; do
    built="$CARGO_TARGET_DIR/release/$name"
    [ -x "$built" ] || { [ -x "$run/bin/$name" ] && continue; fail "$name is not built: make build"; }
    cmp -s "$built" "$run/bin/$name" && continue
    cp "$built" "$run/bin/$name.new"
    mv "$run/bin/$name.new" "$run/bin/$name"
  done
}

# --- commands --------------------------------------------------------------------------------

lock() {
  mkdir -p "$run/pid" "$run/log" "$run/bin" "$run/data/offline" "$run/data/registry"
  exec 9>"$run/lock"
  flock -w 180 9 || fail "another stack.sh is at work on $run"
}

up() {
  local begun=$SECONDS name started=""
  lock
  install_binaries
  choose_ports
  running redis || { start_redis; started="$started redis"; }
  running kafka || { start_kafka; started="$started kafka"; }
  wait_for 20 redis redis_ready
  wait_for 60 kafka kafka_ready
  for name in "${services[@]}"; do
    if running "$name" && [ "$(digest_of "$name")" != "$(service_digest "$name")" ]; then
      say "  $name was rebuilt or is set up differently: restarting it"
      stop 20 "$name"
    fi
    running "$name" || { start_service "$name"; started="$started $name"; }
  done
  for name in "${services[@]}"; do wait_for 60 "$name" service_ready "$name"; done
  say "  up and ready in $((SECONDS - begun)) s; started:${started:- nothing, everything ran already}"
}

down() {
  local name was=""
  lock
  for name in "${everything[@]}"; do running "$name" && was="$was $name"; done
  # The door first, so that nothing new comes in; then those behind it drain at once.
  stop 20 collector
  stop 20 scorer trainer feature-store cleaner
  stop 30 kafka
  stop 15 redis
  say "  stopped:${was:- nothing was running}"
}

restart_one() {
  case " ${everything[*]} " in *" $1 "*) ;; *) fail "there is no process $1; there are: ${everything[*]}" ;; esac
  lock
  stop 30 "$1"
  flock -u 9
  up
}

status() {
  load_ports || { say "nothing was started in $run yet: make up"; return; }
  local name pid state address detail down=0 variable
  printf '%-14s %-8s %-22s %-8s %-10s %s\n' process pid address "mem MiB" state ""
  for name in "${everything[@]}"; do
    variable=${name^^}
    address="$host:$(port "${variable//-/_}")"
    if pid=$(pid_of "$name"); then
      state=ready
      detail=""
      case $name in
        redis) redis_ready || state=waiting ;;
        kafka) taken "$(port KAFKA)" || state=waiting ;;
        *) service_ready "$name" || {
             state=waiting
             detail=$(http_get "$(admin_port "$name")" /readyz | sed '1,/^$/d' | tr '\n' ' ')
           } ;;
      esac
      printf '%-14s %-8s %-22s %-8s %-10s %s\n' "$name" "$pid" "$address" \
        "$(awk '/^VmRSS/ { printf "%d", $2 / 1024 }' "/proc/$pid/status")" "$state" "$detail"
    else
      down=1
      printf '%-14s %-8s %-22s %-8s %-10s %s\n' "$name" - "$address" - down ""
    fi
  done
  say "metrics: http://$host:PORT/metrics with PORT $(for name in "${services[@]}"; do printf '%s %s  ' "$(admin_port "$name")" "$name"; done)"
  say "logs: $run/log"
  return "$down"
}

logs() {
  local name files=()
  [ -d "$run/log" ] || fail "there are no logs in $run yet: make up"
  [ $# -gt 0 ] || set -- "${everything[@]}"
  for name in "$@"; do
    case " ${everything[*]} " in *" $name "*) files+=("$run/log/$name.log") ;; *) fail "there is no process $name; there are: ${everything[*]}" ;; esac
  done
  exec tail -n 20 -F "${files[@]}"
}

case ${1:-} in
  up) up ;;
  down) down ;;
  restart) if [ -n "${2:-}" ]; then restart_one "$2"; else down; flock -u 9; up; fi ;;
  status) status ;;
  logs) shift; logs "$@" ;;
  *) sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//' >&2; exit 64 ;;
esac
