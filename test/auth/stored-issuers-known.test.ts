/** That an issuer is none of ours, and that one is: what is known of it while the database is away, and what a change makes of it. */
import { describe, expect, it } from 'vitest'
import { isForeign, TokenVerifier } from '../../src/auth/tokens.ts'
import { stratumError } from '../../src/core/error-classes.ts'
import { type ErrorCode, StratumError } from '../../src/core/errors.ts'
import { AUDIENCE, claims, ISSUER, issuer, NOW, publicJwk, token } from './signing.ts'

const LOWER = '0197a000-0000-4000-8000-0000000000b1'
const UPPER = '0197a000-0000-4000-8000-0000000000b2'
const row = (id: string, change: object = {}) => ({
  ...{ id, tenant_id: null, issuer: ISSUER, audience: AUDIENCE, algorithms: ['ES256'], keys: [publicJwk('P-256')] },
  ...{ tenant_claim: 'tenant', scopes_claim: 'scope', max_scopes: ['read'], global: false, ...change },
})

/** An isolate over a database that answers `holds.row`, or fails with `holds.fails`. */
function isolate() {
  const clock = { seconds: NOW }
  const holds: { row: unknown; fails: ErrorCode | null } = { row: null, fails: null }
  const asked: string[] = []
  const stored = async (name: string) => {
    asked.push(name)
    if (holds.fails) throw stratumError(holds.fails)
    return holds.row
  }
  const verifier = new TokenVerifier([issuer({ audience: 'of the environment' })], { stored, now: () => clock.seconds * 1000 })
  let current = async () => true
  let guarded = 0
  const beforeAsking = () => {
    guarded++
  }
  const codeOf = (work: Promise<unknown>) =>
    work.then(
      () => 'verified',
      (error: unknown) => (error instanceof StratumError ? error.code : error),
    )
  let made = 0
  const fresh = (change: object = {}) => token(claims({ index: made++, exp: NOW + 36_000, ...change }))
  return {
    ...{ clock, holds, asked, verifier },
    guarded: () => guarded,
    /** A new token as the API gets it, which waits. */
    waiting: (change?: object) => codeOf(verifier.verify(fresh(change), { beforeAsking })),
    /** A new token as the gateway gets it, which is told of changes. */
    passing: (change?: object) => codeOf(verifier.verify(fresh(change), { beforeAsking, noneStands: () => current() })),
    setCurrent: (answer: () => Promise<boolean>) => {
      current = answer
    },
    verified: async (text = fresh()) => (await verifier.verify(text)).issuer_id,
  }
}

describe('a token of a stored issuer', () => {
  it('is refused as expired once it has, and never taken for somebody else’s', async () => {
    const { holds, verifier } = isolate()
    holds.row = row(LOWER)
    const refusal = await verifier.verify(token(claims({ exp: NOW - 60 }))).catch((error: unknown) => error)
    expect(refusal).toMatchObject({ code: 'TOKEN_INVALID', details: { reason: 'it has expired' } })
    expect(isForeign(refusal)).toBe(false)
  })
})

describe('that an issuer is none of ours', () => {
  it('is asked about again after 5 seconds, but for who knows that nothing has changed', async () => {
    const { clock, asked, waiting, passing } = isolate()
    await waiting()
    clock.seconds += 4
    await waiting()
    expect(asked).toHaveLength(1)
    clock.seconds += 6
    expect(await passing()).toBe('TOKEN_INVALID')
    expect(asked).toHaveLength(1)
    expect(await waiting()).toBe('TOKEN_INVALID')
    expect(asked).toHaveLength(2)
  })

  it('stands no longer than 10 minutes, and not where what is known may not hold', async () => {
    const { clock, asked, holds, passing, setCurrent } = isolate()
    await passing()
    clock.seconds += 599
    expect(await passing()).toBe('TOKEN_INVALID')
    expect(asked).toHaveLength(1)
    setCurrent(async () => false)
    holds.row = row(LOWER)
    expect(await passing()).toBe('verified')
    expect(asked).toHaveLength(2)
    const old = isolate()
    await old.passing()
    old.clock.seconds += 600
    await old.passing()
    expect(old.asked).toHaveLength(2)
  })

  it('does not stand where looking whether it holds tells of a change', async () => {
    const { clock, holds, passing, verifier, setCurrent, guarded } = isolate()
    await passing()
    clock.seconds += 10
    holds.row = row(LOWER)
    setCurrent(async () => {
      verifier.changed([{ kind: 'issuer', ref: ISSUER }])
      return true
    })
    expect(await passing()).toBe('verified')
    expect(guarded()).toBe(2)
  })

  it.each(['DATABASE_UNAVAILABLE', 'DATABASE_BUSY', 'DATABASE_OUTDATED'] as const)('is no answer where the database says %s', async (code) => {
    const { clock, holds, passing, waiting } = isolate()
    await passing()
    clock.seconds += 10
    holds.fails = code
    expect(await waiting()).toBe(code)
    expect(await passing({ iss: 'https://unknown.test' })).toBe(code)
  })
})

describe('a change of an issuer', () => {
  it('shows one that is bound above the one that is known, to tokens that were verified before, too', async () => {
    const { holds, asked, verified, verifier } = isolate()
    holds.row = row(LOWER)
    const audiences = { aud: ['of below', AUDIENCE] }
    const [text, another] = [token(claims(audiences)), () => verified(token(claims({ ...audiences, index: asked.length })))]
    expect(await verified(text)).toBe(LOWER)
    holds.row = row(UPPER)
    expect([await verified(text), await another()]).toEqual([LOWER, LOWER])
    verifier.changed([
      { kind: 'subtree', ref: ISSUER },
      { kind: 'issuer', ref: ISSUER },
    ])
    expect(verifier.known(text)).toBeUndefined()
    expect([await verified(text), await another()]).toEqual([UPPER, UPPER])
    expect(asked).toHaveLength(2)
  })

  it('shows one that was not there a moment ago', async () => {
    const { holds, verifier, waiting, passing } = isolate()
    await waiting()
    holds.row = row(LOWER)
    expect(await waiting()).toBe('TOKEN_INVALID')
    verifier.changed([{ kind: 'issuer', ref: ISSUER }])
    expect([await passing(), await waiting()]).toEqual(['verified', 'verified'])
  })

  it('of another name, or of anything else, drops nothing', async () => {
    const { holds, asked, verified, verifier } = isolate()
    holds.row = row(LOWER)
    const text = token()
    await verified(text)
    verifier.changed([
      { kind: 'issuer', ref: 'https://other.test' },
      { kind: 'principal', ref: ISSUER },
      { kind: 'definitions', ref: ISSUER },
    ])
    verifier.changed([])
    expect(verifier.known(text)?.issuer_id).toBe(LOWER)
    await verified()
    expect(asked).toHaveLength(1)
  })

  it.each([
    ['everything', 'everything' as const],
    ['the installation', [{ kind: 'installation', ref: '' }]],
  ])('that may be any, as %s changed, drops all stored ones and nothing of the environment', async (_, changes) => {
    const { holds, verified, verifier } = isolate()
    const ofEnvironment = token(claims({ aud: 'of the environment' }))
    await verifier.verify(ofEnvironment)
    holds.row = row(LOWER)
    const text = token()
    await verified(text)
    holds.row = row(UPPER)
    verifier.changed(changes)
    expect([verifier.known(text), verifier.known(ofEnvironment)?.subject]).toEqual([undefined, 'user-1'])
    expect(await verified(text)).toBe(UPPER)
  })

  it('that comes while the issuer is asked for, or a token verified, leaves nothing from before it', async () => {
    const held: Array<(row: unknown) => void> = []
    const stored = () => new Promise<unknown>((resolve) => held.push(resolve))
    const verifier = new TokenVerifier([], { stored, now: () => NOW * 1000 })
    const text = token()
    const before = verifier.verify(text)
    verifier.changed([{ kind: 'issuer', ref: ISSUER }])
    // Who comes after the change does not follow who asked before it.
    const after = verifier.verify(token(claims({ index: 1 })))
    expect(held).toHaveLength(2)
    held[1]?.(row(UPPER))
    expect((await after).issuer_id).toBe(UPPER)
    held[0]?.(row(LOWER))
    expect((await before).issuer_id).toBe(LOWER)
    expect(verifier.known(text)).toBeUndefined()
    expect((await verifier.verify(token(claims({ index: 2 })))).issuer_id).toBe(UPPER)
    expect(held).toHaveLength(2)
  })
})
