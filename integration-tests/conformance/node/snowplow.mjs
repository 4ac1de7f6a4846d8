// @snowplow/node-tracker: node snowplow.mjs <host url> <app id> <events>
import { buildStructEvent, buildPageView, newTracker } from '@snowplow/node-tracker'

const [host, appId, events] = [process.argv[2], process.argv[3], Number(process.argv[4])]
const sent = []
const tracker = newTracker(
  { namespace: 'conformance', appId, encodeBase64: true },
  {
    endpoint: host,
    eventMethod: 'post',
    bufferSize: 10,
    onRequestSuccess: (batch) => sent.push(...batch.map((event) => event.getPayload?.().eid ?? event.eid)),
    onRequestFailure: (failure) => { console.error(failure) },
  },
)
tracker.setUserId('snowplow-node')
for (let n = 0; n < events; n++) {
  if (n % 2) tracker.track(buildPageView({ pageUrl: 'https://shop.example/', pageTitle: 'Home' }))
  else tracker.track(buildStructEvent({ category: 'shop', action: 'view', label: `item-${n}`, value: 1 }))
  // All at once would go in one call, which a network seldom fails.
  if (n % 10 === 9) {
    tracker.flush()
    await new Promise((wake) => setTimeout(wake, 150))
  }
}
tracker.flush()
const until = Date.now() + 60000
while (sent.length < events && Date.now() < until) await new Promise((wake) => setTimeout(wake, 100))
console.log(sent.join('\n'))
