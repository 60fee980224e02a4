/** What a start of the Worker is compared with: a bare handler of hono. */
import { Hono } from 'hono'

const app = new Hono()
app.get('/api/v1/health', (context) => context.json({ status: 'ok' }))

export default app
