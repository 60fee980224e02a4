import { afterEach, describe, expect, it, vi } from 'vitest'
import { TokenVerifier } from '../../src/auth/tokens.ts'
import { TokenInvalidError } from '../../src/core/error-classes.ts'
import type { StratumError } from '../../src/core/errors.ts'
import { claims, issuer, NOW, token } from './signing.ts'

async function refusal(text: string, using: TokenVerifier): Promise<string> {
  const error: unknown = await using.verify(text).catch((error: unknown) => error)
  expect(error).toBeInstanceOf(TokenInvalidError)
  return String((error as StratumError).details['reason'])
}

afterEach(() => {
  vi.restoreAllMocks()
})

describe('kept tokens', () => {
  const at = (options: { maximumCached?: number } = {}) => {
    const clock = { seconds: NOW }
    const checked = vi.spyOn(crypto.subtle, 'verify')
    return { clock, checked, using: new TokenVerifier([issuer()], { now: () => clock.seconds * 1000, ...options }) }
  }

  it('are not verified again, and expire all the same', async () => {
    const { clock, checked, using } = at()
    const text = token(claims({ exp: NOW + 10 }))
    const first = await using.verify(text)
    for (clock.seconds = NOW; clock.seconds < NOW + 10; clock.seconds++) expect(await using.verify(text)).toEqual(first)
    expect(checked).toHaveBeenCalledTimes(1)
    await using.verify(text)
    expect(checked).toHaveBeenCalledTimes(2)
    clock.seconds = NOW + 15
    expect(await refusal(text, using)).toBe('it has expired')
  })

  it('are verified again after 5 minutes', async () => {
    const { clock, checked, using } = at()
    const text = token()
    await using.verify(text)
    clock.seconds += 299
    await using.verify(text)
    expect(checked).toHaveBeenCalledTimes(1)
    clock.seconds += 1
    await using.verify(text)
    expect(checked).toHaveBeenCalledTimes(2)
  })

  it('are so many at most, those used last', async () => {
    const { checked, using } = at({ maximumCached: 2 })
    const [a, b, c] = [token(claims({ sub: 'a' })), token(claims({ sub: 'b' })), token(claims({ sub: 'c' }))]
    for (const text of [a, b, a, c, a]) await using.verify(text)
    expect(checked).toHaveBeenCalledTimes(3)
    expect((await using.verify(b)).subject).toBe('b')
    expect(checked).toHaveBeenCalledTimes(4)
  })

  it('cannot be changed by who was answered one', async () => {
    const { using } = at()
    const text = token()
    for (let i = 0; i < 3; i++) {
      const credential = await using.verify(text)
      expect([credential.scopes, credential.tenant]).toEqual([['read'], 'acme'])
      expect(() => (credential.scopes as string[]).push('admin')).toThrow(TypeError)
      expect(() => Object.assign(credential, { tenant: 'other' })).toThrow(TypeError)
    }
  })

  it('are never those that failed', async () => {
    const { clock, using } = at()
    const text = token(claims({ nbf: NOW + 10 }))
    expect(await refusal(text, using)).toBe('it is not valid yet')
    clock.seconds += 10
    expect(await using.verify(text)).toBeTruthy()
    const [header, payload] = text.split('.')
    expect(await refusal(`${header}.${payload}.AAAA`, using)).toContain('signature')
  })
})
