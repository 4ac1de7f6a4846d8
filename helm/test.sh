#!/usr/bin/env bash
# Checks the chart: lint, rendering, the Kubernetes schemas, what must hold in every variant, what
# must be refused, and that the committed examples are what the chart renders.
#
#   helm/test.sh              check
#   helm/test.sh --update     render helm/examples/ again after a change of the chart
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=deploy/dev/env.sh
. "$here/../deploy/dev/env.sh"
python="$RAPPORT_CACHE/test-venv/bin/python"

if ! command -v helm >/dev/null; then
  echo "helm is missing: run deploy/dev/setup.sh --tests" >&2
  exit 1
fi
if ! "$python" -c 'import kubernetes_validate, yaml' 2>/dev/null; then
  echo "the Python test packages are missing: run deploy/dev/setup.sh --tests" >&2
  exit 1
fi

cd "$here"
if [ "${1:-}" = "--update" ]; then
  exec "$python" -B tests/variants.py
fi
exec "$python" -B tests/test_chart.py
