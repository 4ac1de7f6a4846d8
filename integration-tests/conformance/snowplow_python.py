"""snowplow-tracker by POST and by GET: python snowplow_python.py <host url> <app id> <events>"""

import sys
import time
from urllib.parse import urlparse

from snowplow_tracker import AsyncEmitter, Emitter, PageView, SelfDescribing, SelfDescribingJson, StructuredEvent, Subject, Tracker

host, app_id, events = urlparse(sys.argv[1]), sys.argv[2], int(sys.argv[3])
delivered = []
failed = []


def emitter(kind, method, batch_size):
    return kind(
        host.hostname,
        protocol="http",
        port=host.port,
        method=method,
        batch_size=batch_size,
        max_retry_delay_seconds=2,
        on_success=lambda payloads: delivered.extend(payload["eid"] for payload in payloads),
        on_failure=lambda count, payloads: failed.append(count),
    )


emitters = [emitter(AsyncEmitter, "post", 15), emitter(Emitter, "get", 5)]
for which, sender in enumerate(emitters):
    subject = Subject()
    subject.set_user_id(f"snowplow-{which}").set_useragent("Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0")
    tracker = Tracker("conformance", emitters=sender, subject=subject, app_id=app_id)
    before = len(set(delivered))
    for n in range(events // len(emitters)):
        if n % 3 == 0:
            tracker.track(PageView(page_url="https://shop.example/p?utm_source=mail", page_title="P", referrer="https://www.bing.com/"))
        elif n % 3 == 1:
            tracker.track(StructuredEvent(category="shop", action="add-to-basket", label="pcs", property_="item-7", value=2.0))
        else:
            tracker.track(SelfDescribing(SelfDescribingJson("iglu:com.example/view_item/jsonschema/1-0-0", {"item_id": "item-9", "price": 3.5})))
    # What failed is kept by the library and sent again; it says when it was delivered.
    wanted, last, since = before + events // len(emitters), 0, time.monotonic()
    while len(set(delivered)) < wanted and time.monotonic() < since + 10:
        tracker.flush()
        time.sleep(0.2)
        if len(delivered) > last:
            last, since = len(delivered), time.monotonic()
for event_id in dict.fromkeys(delivered):
    print(event_id)
