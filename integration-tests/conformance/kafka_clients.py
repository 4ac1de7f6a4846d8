"""Plain Kafka producers write the raw topic themselves: python kafka_clients.py <brokers> <topic> <events>

confluent-kafka sends CloudEvents in binary mode, and kafka-python sends them structured, both with
the tenant in a header. An id is printed when its record was acknowledged.
"""

import json
import sys
import uuid

from confluent_kafka import Producer
from kafka import KafkaProducer

brokers, topic, events = sys.argv[1], sys.argv[2], int(sys.argv[3])

acknowledged = []
confluent = Producer({"bootstrap.servers": brokers, "acks": "all", "enable.idempotence": True})
for n in range(events // 2):
    event_id = str(uuid.uuid4())
    confluent.produce(
        topic,
        key=f"demo/confluent-{n % 5}",
        value=json.dumps({"item_id": f"item-{n}", "customer_id": f"confluent-{n % 5}"}),
        headers={
            "ce_specversion": "1.0", "ce_id": event_id, "ce_type": "view", "ce_source": "/shop",
            "content-type": "application/json", "rapport-tenant": "demo",
        },
        on_delivery=lambda error, _, event_id=event_id: acknowledged.append(event_id) if error is None else sys.exit(str(error)),
    )
confluent.flush(30)

plain = KafkaProducer(bootstrap_servers=brokers, acks="all")
waiting = []
for n in range(events // 2):
    event_id = str(uuid.uuid4())
    event = {
        "specversion": "1.0", "id": event_id, "type": "purchase", "source": "/shop", "subject": f"plain-{n % 5}",
        "data": {"item_id": f"item-{n}", "value": 9.5, "currency": "EUR"},
    }
    headers = [("content-type", b"application/cloudevents+json"), ("rapport-tenant", b"demo")]
    waiting.append((event_id, plain.send(topic, key=f"demo/plain-{n % 5}".encode(), value=json.dumps(event).encode(), headers=headers)))
for event_id, future in waiting:
    future.get(timeout=30)
    acknowledged.append(event_id)
plain.close()
print("\n".join(acknowledged))
