// @rudderstack/rudder-sdk-node: node rudder.mjs <host url> <key> <events>
import { randomUUID } from 'node:crypto'
import RudderModule from '@rudderstack/rudder-sdk-node'

const Rudder = RudderModule.default ?? RudderModule
const [host, key, events] = [process.argv[2], process.argv[3], Number(process.argv[4])]
const client = new Rudder(key, { dataPlaneUrl: host, flushAt: 15, flushInterval: 200, logLevel: 'silent' })
const calls = []
for (let n = 0; n < events; n++) {
  const messageId = randomUUID()
  calls.push(new Promise((resolve) => {
    client.track(
      { userId: `rudder-node-${n % 5}`, messageId, event: 'Product Viewed', properties: { product_id: `item-${n}` } },
      (error) => resolve(error ? null : messageId),
    )
  }))
}
await client.flush()
const sent = (await Promise.all(calls)).filter(Boolean)
console.log(sent.join('\n'))
process.exit(0)
