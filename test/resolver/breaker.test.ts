/** When the database is left alone, for how long, and what is let through to see whether it is back. */
import { describe, expect, it } from 'vitest'
import { stratumError } from '../../src/core/error-classes.ts'
import type { ErrorCode } from '../../src/core/errors.ts'
import { Breaker } from '../../src/resolver/breaker.ts'

const AWAY = () => stratumError('DATABASE_UNAVAILABLE')
const BUSY_ITSELF = () => stratumError('DATABASE_BUSY', {}, { cause: new Error('55P03') })
const BOUNDED = () => stratumError('DATABASE_BUSY')
const LIMITED = () => stratumError('RATE_LIMITED', { what: '', retry_after: 1 })

/** A breaker without jitter, and a clock that stands still until it is moved. */
function setUp() {
  let time = 1_000
  const breaker = new Breaker(
    () => time,
    () => 1,
  )
  const pass = (milliseconds: number) => {
    time += milliseconds
  }
  /** What becomes of something that is asked: the code of its error, or 'answered'; 'refused' where it was not asked at all. */
  async function ask(error?: () => Error): Promise<ErrorCode | 'answered' | 'refused'> {
    let asked = false
    try {
      return await breaker.guard(async (): Promise<'answered'> => {
        asked = true
        if (error) throw error()
        return 'answered'
      })
    } catch (thrown) {
      return asked ? (thrown as { code: ErrorCode }).code : 'refused'
    }
  }
  /** Something that ends when it is told to. */
  function begin() {
    let end = (_?: Error) => {}
    const ended = breaker
      .guard(() => new Promise<void>((resolve, reject) => (end = (error) => (error ? reject(error) : resolve()))))
      .then(
        () => 'answered',
        (error) => (error as { code: ErrorCode }).code,
      )
    return { ended, end: (error?: Error) => end(error) }
  }
  const fail = async (times: number) => {
    for (let n = 0; n < times; n++) await ask(AWAY)
  }
  return { breaker, pass, ask, begin, fail }
}

describe('failures', () => {
  it('in a row open it, and an answer in between begins the row anew', async () => {
    const { ask, fail } = setUp()
    await fail(2)
    expect(await ask()).toBe('answered')
    await fail(2)
    expect(await ask(AWAY)).toBe('DATABASE_UNAVAILABLE')
    expect(await ask()).toBe('refused')
  })

  it('of one outage that many met at once open it once, however late they come', async () => {
    const { breaker, pass, ask, begin } = setUp()
    const met = Array.from({ length: 10 }, begin)
    for (const { end, ended } of met.slice(0, 8)) {
      end(AWAY())
      await ended
    }
    pass(500)
    expect(breaker.open).toBe(false)
    met[8]?.end(AWAY())
    await met[8]?.ended
    expect(breaker.open).toBe(false)
    expect(await ask()).toBe('answered')
  })

  it.each([
    ['a limit of ours', LIMITED],
    ['a full house of ours', BOUNDED],
  ])('stand whatever never reached the database: %s', async (_, error) => {
    const { ask, fail } = setUp()
    await fail(2)
    await ask(error)
    await fail(1)
    expect(await ask()).toBe('refused')
  })

  it('are none: what a limit or a full house of ours refuses', async () => {
    const { ask } = setUp()
    for (let n = 0; n < 10; n++) await ask(n % 2 ? LIMITED : BOUNDED)
    expect(await ask()).toBe('answered')
  })

  it.each([
    ['a refusal', () => stratumError('TENANT_NOT_FOUND')],
    ['that it is busy', BUSY_ITSELF],
  ])('are over when the database answers, be it %s', async (_, error) => {
    const { ask, fail } = setUp()
    await fail(2)
    await ask(error)
    await fail(2)
    expect(await ask()).toBe('answered')
  })

  it('that a caller notices count as well, but for those while it is open', async () => {
    const { breaker, pass } = setUp()
    for (let n = 0; n < 30; n++) breaker.failed()
    expect(breaker.open).toBe(true)
    pass(500)
    expect(breaker.open).toBe(false)
  })
})

describe('while it is open', () => {
  it('it says when it may close, and the pauses grow up to 15 seconds', async () => {
    const { breaker, pass, ask, fail } = setUp()
    await fail(3)
    const pauses: number[] = []
    for (let round = 0; round < 8; round++) {
      const refused = await breaker.guard(async () => 1).catch((error: unknown) => error)
      expect(refused).toMatchObject({ code: 'DATABASE_UNAVAILABLE', status: 503 })
      const seconds = (refused as { retryAfter: number }).retryAfter
      pauses.push(seconds)
      pass(seconds * 1_000)
      expect(await ask(AWAY)).toBe('DATABASE_UNAVAILABLE')
    }
    expect(pauses).toEqual([1, 1, 2, 4, 8, 15, 15, 15])
  })

  it('an answer to what was asked before closes it', async () => {
    const { ask, begin, fail } = setUp()
    const before = begin()
    await fail(3)
    before.end()
    await before.ended
    expect(await ask()).toBe('answered')
  })
})

describe('when its pause is over', () => {
  it('one probe is let through, and the others once that was answered', async () => {
    const { breaker, pass, ask, begin, fail } = setUp()
    await fail(3)
    pass(500)
    const probe = begin()
    expect(breaker.open).toBe(true)
    expect([await ask(), await ask()]).toEqual(['refused', 'refused'])
    probe.end()
    expect(await probe.ended).toBe('answered')
    expect(await Promise.all([ask(), ask()])).toEqual(['answered', 'answered'])
  })

  it('a probe that fails opens it for longer at once', async () => {
    const { pass, ask, fail } = setUp()
    await fail(3)
    pass(500)
    expect(await ask(AWAY)).toBe('DATABASE_UNAVAILABLE')
    pass(999)
    expect(await ask()).toBe('refused')
    pass(1)
    expect(await ask()).toBe('answered')
  })

  it('a probe that a caller gave up opens it for longer too', async () => {
    const { breaker, pass, ask, begin, fail } = setUp()
    await fail(3)
    pass(500)
    begin()
    breaker.failed()
    pass(999)
    expect(await ask()).toBe('refused')
    pass(1)
    expect(await ask()).toBe('answered')
  })

  it('a probe that tells nothing makes room for another', async () => {
    const { pass, ask, fail } = setUp()
    await fail(3)
    pass(500)
    expect([await ask(LIMITED), await ask(BOUNDED), await ask(), await ask()]).toEqual(['RATE_LIMITED', 'DATABASE_BUSY', 'answered', 'answered'])
  })

  it('a probe of which nothing is heard any more does so after 5 seconds', async () => {
    const { pass, ask, begin, fail } = setUp()
    await fail(3)
    pass(500)
    begin()
    pass(4_999)
    expect(await ask()).toBe('refused')
    pass(1)
    expect(await ask()).toBe('answered')
  })
})
