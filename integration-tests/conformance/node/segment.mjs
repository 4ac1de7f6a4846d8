// @segment/analytics-node: node segment.mjs <host url> <key> <events>
import { Analytics } from '@segment/analytics-node'

const [host, writeKey, events] = [process.argv[2], process.argv[3], Number(process.argv[4])]
const analytics = new Analytics({ writeKey, host, path: '/v1/batch', flushAt: 15, maxRetries: 10 })
analytics.on('error', (error) => { console.error(error); process.exitCode = 1 })
const sent = []
for (let n = 0; n < events; n++) {
  const userId = `segment-node-${n % 5}`
  const done = (error, ctx) => { if (!error) sent.push(ctx.event.messageId) }
  if (n % 10 === 0) analytics.identify({ userId, traits: { plan: 'pro' } }, done)
  else analytics.track({ userId, event: 'Product Viewed', properties: { product_id: `item-${n}`, price: 5 } }, done)
}
await analytics.closeAndFlush({ timeout: 60000 })
console.log(sent.join('\n'))
