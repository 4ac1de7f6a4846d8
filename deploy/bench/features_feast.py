"""Feast's Python SDK: features of some rows from its own online store in Redis, one process, one call at a time.

Prints a JSON object: by rows, the median and the 99 % of the calls' seconds. `make bench BENCH="--only features"`
runs it in the environment that `deploy/dev/setup.sh --feast` makes.
"""

import argparse
import json
import random
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64
from feast.value_type import ValueType

parser = argparse.ArgumentParser()
parser.add_argument("--redis", required=True, help="host:port")
parser.add_argument("--customers", type=int, required=True)
parser.add_argument("--features", type=int, required=True)
parser.add_argument("--calls", type=int, required=True, help="of a single row; fewer of more")
parser.add_argument("--rows", required=True, help="1,10,..")
args = parser.parse_args()

WARM_UP = 5

with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "feature_store.yaml").write_text(
        "project: bench\nregistry: registry.db\nprovider: local\nentity_key_serialization_version: 3\n"
        f"online_store:\n  type: redis\n  connection_string: {args.redis}\noffline_store:\n  type: file\n"
    )
    store = FeatureStore(repo_path=folder)
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
    names = [f"f{n}" for n in range(args.features)]
    now = datetime.now(timezone.utc)
    rng = random.Random(7)
    ids = [f"customer-{n:07}" for n in range(args.customers)]
    rows = {name: [rng.random() * 100 for _ in ids] for name in names}
    table = pd.DataFrame({"customer_id": ids, "event_timestamp": now, **rows})
    path = Path(folder) / "rows.parquet"
    table.head(1).to_parquet(path)
    view = FeatureView(
        name="v",
        entities=[customer],
        ttl=timedelta(days=365),
        schema=[Field(name=name, dtype=Float64) for name in names],
        source=FileSource(path=str(path), timestamp_field="event_timestamp"),
    )
    store.apply([customer, view])
    for start in range(0, args.customers, 200):
        store.write_to_online_store("v", table.iloc[start : start + 200])
    asked = [f"v:{name}" for name in names]

    found = {}
    for many in map(int, args.rows.split(",")):
        calls = max(20, int(args.calls / many**0.5))
        took = []
        for call in range(WARM_UP + calls):
            entity_rows = [{"customer_id": ids[(call * 7_919 + row * 104_729) % len(ids)]} for row in range(many)]
            began = time.perf_counter()
            answer = store.get_online_features(features=asked, entity_rows=entity_rows)
            if call >= WARM_UP:
                took.append(time.perf_counter() - began)
        columns = answer.to_dict()
        assert len(columns) == args.features + 1 and all(value is not None for value in columns["f0"]), "nothing was read"
        took.sort()
        found[many] = {"p50": took[len(took) // 2], "p99": took[int(len(took) * 0.99)], "calls": len(took)}
    print(json.dumps(found))
