import { headers } from 'next/headers'
import type { ReactNode } from 'react'
import { tenantOf } from '../lib/stratum.ts'

export default async function Layout({ children }: { children: ReactNode }) {
  const { slug } = await tenantOf(await headers())
  return (
    <html lang="en">
      <body>
        <h1>{slug}</h1>
        {children}
      </body>
    </html>
  )
}
