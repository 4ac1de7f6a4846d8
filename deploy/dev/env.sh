# shellcheck shell=bash
# Sourced by the development scripts and the Makefile's recipes: where things are.
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export RAPPORT_CACHE="${RAPPORT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rapport}"
export RAPPORT_RUN_DIR="${RAPPORT_RUN_DIR:-$repo/.rapport}"
export RAPPORT_KAFKA_VERSION=4.3.1
export RAPPORT_KAFKA_LIBS="$RAPPORT_CACHE/kafka-$RAPPORT_KAFKA_VERSION"
export RAPPORT_HELM_VERSION=v3.22.0
export RAPPORT_VERSITYGW_VERSION=v1.8.0
# A change of the pinned wheels makes a new environment instead of mending an old one.
RAPPORT_VENV="$RAPPORT_CACHE/venv-$(sha256sum "$repo/deploy/dev/requirements.txt" | cut -c1-12)"
export RAPPORT_VENV
export RAPPORT_DATA="$RAPPORT_CACHE/data"
export RAPPORT_TEXT_MODEL="${RAPPORT_TEXT_MODEL:-$RAPPORT_DATA/all-minilm-l6-v2}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$RAPPORT_CACHE/target}"
site_packages=$(echo "$RAPPORT_VENV"/lib/python3*/site-packages)
export LIBTORCH="${LIBTORCH:-$site_packages/torch}"
for library in "$site_packages"/onnxruntime/capi/libonnxruntime.so.*; do
  if [ -f "$library" ]; then export ORT_DYLIB_PATH="${ORT_DYLIB_PATH:-$library}"; fi
done
# Threads of libtorch that wait for one another sleep: spinning makes a shared machine several times slower.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
export PATH="$RAPPORT_CACHE/bin:$PATH"
