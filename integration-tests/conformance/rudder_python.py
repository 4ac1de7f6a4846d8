"""rudder-sdk-python, gzip by default: python rudder_python.py <host url> <key> <events>"""

import sys
import uuid

from rudderstack.analytics.client import Client

host, key, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
failed = []
client = Client(key, host=host, max_retries=10, upload_size=20, on_error=lambda error, batch: failed.extend(batch))
sent = []
for n in range(events):
    message_id = str(uuid.uuid4())
    accepted, _ = client.track(
        f"rudder-{n % 5}", "Order Completed", {"order_id": n, "revenue": 12.5, "currency": "USD", "product_id": f"item-{n}"}, message_id=message_id
    )
    if accepted:
        sent.append(message_id)
client.shutdown()
lost = {message["messageId"] for message in failed}
for message_id in sent:
    if message_id not in lost:
        print(message_id)
if lost:
    sys.exit(f"{len(lost)} events failed")
