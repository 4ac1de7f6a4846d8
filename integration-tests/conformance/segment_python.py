"""segment-analytics-python, gzip, its own retries: python segment_python.py <host url> <key> <events>"""

import sys
from datetime import datetime, timezone

from segment.analytics.client import Client

host, key, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
failed = []
client = Client(key, host=host, gzip=True, max_retries=10, upload_size=20, on_error=lambda error, batch: failed.extend(batch))
sent = []
for n in range(events):
    user = f"segment-{n % 7}"
    if n % 10 == 0:
        message = client.identify(user, traits={"email": f"{user}@example.com", "plan": "pro"})
    elif n % 10 == 1:
        message = client.page(user, name="Home", properties={"url": "https://shop.example/", "referrer": "https://www.google.com/"})
    else:
        message = client.track(
            user,
            "Product Viewed",
            {"product_id": f"item-{n % 13}", "price": 19.9, "currency": "EUR", "category": "Games"},
            timestamp=datetime.now(timezone.utc),
        )
    accepted, message = message
    if accepted:
        sent.append(message["messageId"])
client.shutdown()
lost = {message["messageId"] for message in failed}
for message_id in sent:
    if message_id not in lost:
        print(message_id)
if lost:
    sys.exit(f"{len(lost)} events failed")
