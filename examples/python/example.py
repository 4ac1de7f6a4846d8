"""Sends three events of a customer, reads the features that they changed, and asks what to show next.

    pip install -r requirements.txt
    python example.py ann

The stubs are made from ../../proto when the program starts. A program of your own makes them once, with
`python -m grpc_tools.protoc`.
"""

import os
import sys
import time
from pathlib import Path

import grpc

sys.path.append(os.environ.get("RAPPORT_PROTO", str(Path(__file__).resolve().parents[2] / "proto")))
collect_messages, collect = grpc.protos_and_services("rapport/collect/v1/collector.proto")
event_messages = grpc.protos("rapport/events/v1/events.proto")
feature_messages, features = grpc.protos_and_services("rapport/features/v1/features.proto")
recommend_messages, recommend = grpc.protos_and_services("rapport/recommend/v1/recommend.proto")

DEADLINE = 5  # seconds, for each call
READABLE_WITHIN = 30


def address(variable: str, default: str) -> str:
    return os.environ.get(variable, default)


def send(customer: str) -> None:
    """Events. The id is the same when an event is sent again: the second one is dropped."""
    run = time.time_ns()
    events = [
        event_messages.Event(
            event_id=f"python-{customer}-{item}-{run}", type="view", customer_id=customer, item_id=item
        )
        for item in ("50", "172", "181")
    ]
    key = ("authorization", f"Bearer {os.environ.get('RAPPORT_API_KEY', 'dev-key')}")
    with grpc.insecure_channel(address("RAPPORT_COLLECTOR", "127.0.0.1:7101")) as channel:
        request = collect_messages.CollectBatchRequest(events=events)
        outcomes = collect.CollectorStub(channel).CollectBatch(request, timeout=DEADLINE, metadata=[key]).outcomes
    accepted = collect_messages.Outcome.STATUS_ACCEPTED
    # STATUS_RETRY would mean: send this one again, with the same id.
    if wrong := [outcome for outcome in outcomes if outcome.status != accepted]:
        sys.exit(f"{wrong[0].event_id}: {wrong[0].field} {wrong[0].message}")
    print("accepted", len(outcomes))


def read(customer: str, tenant: tuple) -> None:
    """Features, a few milliseconds later: `version` counts the customer's events."""
    request = feature_messages.GetFeaturesRequest(entity_ids=[customer], views=["activity"])
    with grpc.insecure_channel(address("RAPPORT_FEATURE_STORE", "127.0.0.1:7301")) as channel:
        store = features.FeatureStoreStub(channel)
        since = time.monotonic()
        while True:
            answer = store.GetFeatures(request, timeout=DEADLINE, metadata=[tenant])
            if answer.vectors[0].version >= 3:
                break
            if time.monotonic() - since > READABLE_WITHIN:
                sys.exit("the events did not become features")
            time.sleep(0.02)
    for name, value in zip(answer.names, answer.vectors[0].values):
        print(f"{name} = {value:g}")


def ask(customer: str, tenant: tuple) -> None:
    """What to show next. `degraded` says what the answer had to do without."""
    request = recommend_messages.RecommendRequest(customer_id=customer, limit=5, with_titles=True)
    with grpc.insecure_channel(address("RAPPORT_SCORER", "127.0.0.1:7501")) as channel:
        answer = recommend.RecommenderStub(channel).Recommend(request, timeout=DEADLINE, metadata=[tenant])
    for item in answer.items:
        print(f"recommended {item.item_id} {item.title} {item.score:.4f}")
    print("degraded", list(answer.provenance.degraded))


if __name__ == "__main__":
    customer = sys.argv[1] if len(sys.argv) > 1 else "ann"
    tenant = ("x-rapport-tenant", os.environ.get("RAPPORT_TENANT", "demo"))
    send(customer)
    read(customer, tenant)
    ask(customer, tenant)
