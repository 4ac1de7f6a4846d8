#!/usr/bin/env bash
# The main job: set up, build, start, import 100,000 real ratings, learn, serve, and show that an
# answer changes while a new customer acts. Everything is left running. Running it again is safe:
# what is there is reused, and the second import is all duplicates.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

customer=${RAPPORT_DEMO_CUSTOMER:-196}
# What the new customer rates: Star Wars, The Empire Strikes Back, Return of the Jedi.
new_items=${RAPPORT_DEMO_ITEMS:-50,172,181}
# The sequence model's training ends after this; the ridge takes seconds.
budget=${RAPPORT_DEMO_TRAIN_SECONDS:-120}

begun=$(date +%s%N)
step_begun=$begun
step_name=""
times=""
seconds_since() { awk -v a="$1" -v b="$(date +%s%N)" 'BEGIN { printf "%.1f", (b - a) / 1e9 }'; }

end_step() {
  [ -n "$step_name" ] || return 0
  local took
  took=$(seconds_since "$step_begun")
  printf -- '-- %s: %s s\n' "$step_name" "$took"
  times="$times$(printf '  %-28s %8s s' "$step_name" "$took")
"
}

step() {
  end_step
  step_name=$1
  step_begun=$(date +%s%N)
  printf '\n== %s\n' "$1"
}

stopped() {
  local code=$?
  [ "$code" -eq 0 ] && return
  printf '\nthe demo ended in the step "%s". Nothing is broken: run it again, or look: make status, make logs, make down\n' "$step_name" >&2
}
trap stopped EXIT

step "1 set up"
"$here/setup.sh"
# After the set-up, so that it finds what that brought.
# shellcheck source=deploy/dev/env.sh
. "$here/env.sh"
run=$RAPPORT_RUN_DIR

step "2 build"
(cd "$here/../.." && CARGO_INCREMENTAL=0 cargo build --release --workspace)

step "2 start"
"$here/stack.sh" up
# The addresses come from ports.env, whatever the caller's shell has set.
ctl() { env -u RAPPORT_KAFKA_BROKERS "$run/bin/rapportctl" --address-file "$run/ports.env" "$@"; }

step "3 import"
ctl import movielens "$RAPPORT_DATA/ml-100k"

step "4 learn"
ctl train --time-budget-s "$budget"

step "5 serve"
ctl models wait
printf 'What customer %s rated last:\n' "$customer"
ctl history "$customer" --limit 8
printf '\nThe ten best for customer %s:\n' "$customer"
ctl recommend "$customer" --limit 10 --fresh
printf '\nWhy the first three:\n'
ctl explain "$customer" --limit 3
printf '\nA new customer rates three films:\n'
ctl watch-change --items "$new_items" --limit 10

end_step
step_name=""
value() { sed -n "s/^$1=//p" "$run/ports.env"; }
cat <<EOF

== 6 summary
$times  ----------------------------------------
  all                          $(printf '%8s' "$(seconds_since "$begun")") s

The mesh is running. Where to look next:
  make status | logs | down
  $run/bin/rapportctl recommend $customer            (also: explain, similar, rank, history, features, models, simulate)
  curl -s http://127.0.0.1:$(value RAPPORT_PORT_COLLECTOR_HTTP)/v1/batch -u dev-key: -H 'content-type: application/json' \\
    -d '{"batch":[{"type":"track","messageId":"m1","userId":"ann","event":"view","properties":{"item_id":"50"}}]}'
  grpcurl -plaintext 127.0.0.1:$(value RAPPORT_PORT_SCORER) list
  grpcurl -plaintext -d '{"customer_id":"$customer","limit":3,"with_titles":true}' \\
    127.0.0.1:$(value RAPPORT_PORT_SCORER) rapport.recommend.v1.Recommender/Recommend
  grpcurl -plaintext -H 'authorization: Bearer dev-key' \\
    -d '{"events":[{"type":"view","customer_id":"ann","item_id":"50"}]}' \\
    127.0.0.1:$(value RAPPORT_PORT_COLLECTOR) rapport.collect.v1.Collector/CollectBatch
  metrics: http://127.0.0.1:$(value RAPPORT_PORT_COLLECTOR_ADMIN)/metrics (collector), $(value RAPPORT_PORT_CLEANER_ADMIN) (cleaner), $(value RAPPORT_PORT_FEATURE_STORE_ADMIN) (feature store), $(value RAPPORT_PORT_TRAINER_ADMIN) (trainer), $(value RAPPORT_PORT_SCORER_ADMIN) (scorer)
  logs:     $run/log/
  events:   $run/data/offline/events/ (Parquet), models: $run/data/registry/
EOF
