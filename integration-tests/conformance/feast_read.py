"""feast 0.67: its remote online store over HTTP, and its own generated stub over gRPC.

python feast_read.py <http url> <grpc address> <question in JSON>

The question: {"features": [...], "entities": {"customer_id": [...], ...}, "full_feature_names": bool}. Prints one
JSON object: what each of the two ways read, as the package hands it out.
"""

import json
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import grpc
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.errors import FeastError
from feast.protos.feast.serving import ServingService_pb2 as serving
from feast.protos.feast.serving.ServingService_pb2_grpc import ServingServiceStub
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.types import Float64, String
from feast.value_type import ValueType

url, address, question = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
features, entities, full = question["features"], question["entities"], question["full_feature_names"]


def store_in(folder: Path) -> FeatureStore:
    (folder / "feature_store.yaml").write_text(
        "project: shop\nregistry: registry.db\nprovider: local\nentity_key_serialization_version: 3\n"
        f"online_store:\n  type: remote\n  path: {url}\noffline_store:\n  type: file\n"
    )
    return FeatureStore(repo_path=str(folder))


def over_http() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        store = store_in(Path(folder))
        rows = [dict(zip(entities, row)) for row in zip(*entities.values())]
        read = store.get_online_features(features=features, entity_rows=rows, full_feature_names=full)
        statuses = [[int(status) for status in column.statuses] for column in read.proto.results]
        try:
            store.get_online_features(features=["nothing:at_all"], entity_rows=rows)
            refused = None
        except FeastError as error:
            refused = {"class": type(error).__name__, "message": str(error)}
        return {"values": read.to_dict(), "statuses": statuses, "refused": refused}


def by_registered_view() -> dict:
    """The way of feast's own `online_read`, which asks for one view with one join key."""
    view, feature = features[0].split(":")
    with tempfile.TemporaryDirectory() as folder:
        store = store_in(Path(folder))
        customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
        source = FileSource(path=str(Path(folder) / "none.parquet"), timestamp_field="event_timestamp")
        table = FeatureView(
            name=view,
            entities=[customer],
            ttl=timedelta(days=365),
            schema=[Field(name="customer_id", dtype=String), Field(name=feature, dtype=Float64)],
            source=source,
        )
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey

        keys = [
            EntityKey(join_keys=["customer_id"], entity_values=[Value(string_val=str(id))])
            for id in entities["customer_id"]
        ]
        read = store._get_provider().online_read(store.config, table, keys, requested_features=[feature])
        value = lambda proto: proto.double_val if proto.WhichOneof("val") else None  # noqa: E731
        return {
            "event_time": read[0][0].isoformat() if read[0][0] else None,
            "values": [value(row[1][feature]) for row in read],
        }


def over_grpc() -> dict:
    def sent(value):
        kinds = {int: "int64_val", float: "double_val", str: "string_val"}
        return Value(**{kinds[type(value)]: value})

    def column(values):
        return RepeatedValue(val=[sent(value) for value in values])

    with grpc.insecure_channel(address) as channel:
        stub = ServingServiceStub(channel)
        info = stub.GetFeastServingInfo(serving.GetFeastServingInfoRequest(), timeout=10)
        read = stub.GetOnlineFeatures(
            serving.GetOnlineFeaturesRequest(
                features=serving.FeatureList(val=features),
                entities={key: column(ids) for key, ids in entities.items()},
                full_feature_names=full,
            ),
            timeout=10,
        )
    names = list(read.metadata.feature_names.val)

    def plain(value):
        kind = value.WhichOneof("val")
        if kind == "string_list_val":
            return list(value.string_list_val.val)
        return getattr(value, kind) if kind else None

    return {
        "version": info.version,
        "values": {name: [plain(v) for v in c.values] for name, c in zip(names, read.results)},
        "statuses": [[int(status) for status in column.statuses] for column in read.results],
        "event_ms": [[t.ToMilliseconds() for t in column.event_timestamps] for column in read.results],
    }


json.dump({"http": over_http(), "view": by_registered_view(), "grpc": over_grpc()}, sys.stdout)
