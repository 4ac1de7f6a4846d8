"""posthog, gzip: python posthog_python.py <host url> <key> <events>"""

import sys

from posthog import Posthog

host, key, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
failed = []
client = Posthog(key, host=host, gzip=True, flush_at=20, max_retries=10, on_error=lambda error, batch: failed.extend(batch), enable_local_evaluation=False)
sent = []
for n in range(events):
    user = f"posthog-{n % 5}"
    if n % 10 == 0:
        sent.append(client.set(distinct_id=user, properties={"plan": "pro"}))
    else:
        sent.append(client.capture("product viewed", distinct_id=user, properties={"product_id": f"item-{n}", "$current_url": "https://shop.example/p"}))
client.shutdown()
lost = {message["uuid"] for message in failed}
for event_id in sent:
    if event_id and event_id not in lost:
        print(event_id)
if lost:
    sys.exit(f"{len(lost)} events failed")
