// posthog-node: node posthog.mjs <host url> <key> <events>
import { randomUUID } from 'node:crypto'
import { PostHog } from 'posthog-node'

const [host, key, events] = [process.argv[2], process.argv[3], Number(process.argv[4])]
const client = new PostHog(key, { host, flushAt: 15, flushInterval: 200, fetchRetryCount: 10, fetchRetryDelay: 200 })
client.on('error', (error) => { console.error(error); process.exitCode = 1 })
const sent = []
for (let n = 0; n < events; n++) {
  const uuid = randomUUID()
  client.capture({ distinctId: `posthog-node-${n % 5}`, event: 'product viewed', properties: { product_id: `item-${n}` }, uuid })
  sent.push(uuid)
  // All at once would go in one call, which a network seldom fails.
  if (n % 10 === 9) await client.flush()
}
await client.shutdown(60000)
console.log(sent.join('\n'))
