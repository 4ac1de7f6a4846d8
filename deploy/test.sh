#!/usr/bin/env bash
# Checks the Dockerfile and the compose file as far as that goes without a Docker engine: lint,
# schema, and that what they name is there. Builds no image and starts nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=deploy/dev/env.sh
. "$here/dev/env.sh"
venv="$RAPPORT_CACHE/test-venv"

for program in hadolint check-jsonschema; do
  if [ ! -x "$venv/bin/$program" ]; then
    echo "$program is missing: run deploy/dev/setup.sh --tests" >&2
    exit 1
  fi
done

cd "$here"
PATH="$venv/bin:$PATH" exec "$venv/bin/python" -B tests/test_deploy.py
