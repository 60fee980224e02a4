/** A DNS of the tests' own, asked as the real one is: over DNS over HTTPS, in JSON. */
import { dnsOverHttps, type TxtResolver } from '../../src/resolver/dns.ts'

export interface Zone {
  /** TXT values by name. */
  records: Map<string, string[]>
  /** Publish the record that a claim asks for, beside those that are there. */
  publish(claim: { txt_name: string; txt_value: string }): void
  /** While true, every look-up is answered with a failure of the resolver. */
  away: boolean
  /** The names looked up so far. */
  asked: string[]
  resolver: TxtResolver
}

const quoted = (value: string) => `"${value.replaceAll(/[\\"]/g, '\\$&')}"`

export function createZone(): Zone {
  const answer = (name: string): Response => {
    zone.asked.push(name)
    if (zone.away) return new Response('', { status: 502 })
    const values = zone.records.get(name)
    return Response.json({ Status: values ? 0 : 3, Answer: (values ?? []).map((value) => ({ name: `${name}.`, type: 16, TTL: 60, data: quoted(value) })) })
  }
  const zone: Zone = {
    records: new Map(),
    publish: ({ txt_name, txt_value }) => zone.records.set(txt_name, [...(zone.records.get(txt_name) ?? []), txt_value]),
    away: false,
    asked: [],
    resolver: dnsOverHttps({ url: 'https://dns.test/dns-query', fetch: async (input) => answer(new URL(String(input)).searchParams.get('name') ?? '') }),
  }
  return zone
}
