/** Refuses before a page is rendered, which cannot answer 401 itself. */
export { proxy } from './lib/stratum.ts'

// Not for route handlers: they refuse by themselves, and Next.js holds the bodies of what passes here, up to 10 MB.
export const config = { matcher: '/((?!orders$|health$|_next/static/).*)' }
