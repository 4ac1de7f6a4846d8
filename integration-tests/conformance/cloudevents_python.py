"""The CloudEvents SDK over HTTP, binary and structured, and a batch: python cloudevents_python.py <host url> <key> <events>"""

import json
import sys
import time
import uuid

import requests
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

host, key, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
session = requests.Session()


def post(headers, body):
    headers = {**headers, "authorization": f"Bearer {key}"}
    for _ in range(10):
        try:
            response = session.post(f"{host}/v1/events", headers=headers, data=body, timeout=20)
            if response.status_code < 300:
                return
            if response.status_code not in (429, 503):
                sys.exit(f"{response.status_code}: {response.text}")
            time.sleep(float(response.headers.get("Retry-After", "1")))
        except requests.ConnectionError:
            pass
    sys.exit("not accepted after 10 attempts")


def event(n):
    return CloudEvent(
        attributes={"id": str(uuid.uuid4()), "type": "view", "source": "/shop", "subject": f"ce-{n % 5}", "datacontenttype": "application/json"},
        data={"item_id": f"item-{n}", "category": "Games", "size": n},
    )


for n in range(events // 3):
    for convert in (to_binary_event, to_structured_event):
        one = event(n)
        message = convert(one)
        post(message.headers, message.body)
        print(one.get_id())
batch = [event(n) for n in range(events - 2 * (events // 3))]
whole = [json.loads(to_structured_event(one).body) for one in batch]
post({"content-type": "application/cloudevents-batch+json"}, json.dumps(whole))
for one in batch:
    print(one.get_id())
