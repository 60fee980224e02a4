/** Requests as they come from outside, and what of their answers the tests compare. */
import { expect } from 'vitest'
import { CATALOGUE, type ErrorCode, isErrorCode } from '../../src/core/errors.ts'
import { BASE } from './installation.ts'

/** An answer of the API with its body read. */
export interface Answer {
  status: number
  headers: Headers
  /** The body as JSON; null where it is none. */
  body: unknown
  text: string
}

/** The members of an error of the API. */
export interface AnsweredError {
  code: ErrorCode
  message: string
  details?: Record<string, unknown>
  request_id: string
}

export interface Asked {
  method?: string
  /** Scheme and host, if not those that name no tenant. */
  base?: string
  headers?: Record<string, string>
  apiKey?: string
  token?: string
  /** Sent as JSON. */
  json?: unknown
  /** Sent as it is. */
  body?: BodyInit
}

type Fetch = (request: Request) => Response | Promise<Response>

export async function readAnswer(response: Response): Promise<Answer> {
  const text = await response.text()
  let body: unknown = null
  try {
    body = JSON.parse(text)
  } catch {
    // not JSON: the text is there to look at
  }
  return { status: response.status, headers: response.headers, body, text }
}

/** Send a request to a path, e.g. `/api/v1/tenants`. */
export async function ask(fetch: Fetch, path: string, { method = 'GET', base = BASE, headers = {}, apiKey, token, json, body }: Asked = {}): Promise<Answer> {
  const all = new Headers(headers)
  if (apiKey !== undefined) all.set('x-api-key', apiKey)
  if (token !== undefined) all.set('authorization', `Bearer ${token}`)
  const sent = json === undefined ? body : JSON.stringify(json)
  const init = sent === undefined ? {} : { body: sent, duplex: 'half' }
  return readAnswer(await fetch(new Request(base + path, { method, headers: all, ...init })))
}

/** The error of an answer; that it is one, whole and of the catalogue, is asserted. */
export function errorOf(answer: Answer): AnsweredError {
  const { error } = (answer.body ?? {}) as { error?: AnsweredError }
  expect(error, `expected an error, got ${answer.status} ${answer.text.slice(0, 200)}`).toBeDefined()
  const { code, message, request_id } = error as AnsweredError
  expect(isErrorCode(code), `${code} is of the catalogue`).toBe(true)
  expect(answer.status).toBe(CATALOGUE[code][0])
  expect(message).toMatch(/\w/)
  expect(request_id).toMatch(/^[\w.:-]{1,128}$/)
  expect(answer.headers.get('x-request-id')).toBe(request_id)
  return error as AnsweredError
}

/** Assert that an answer is a refusal with this code; its details are answered. */
export function expectRefusal(answer: Answer, code: ErrorCode): Record<string, unknown> {
  expect(`${answer.status} ${(answer.body as { error?: AnsweredError } | null)?.error?.code ?? answer.text.slice(0, 200)}`).toBe(
    `${CATALOGUE[code][0]} ${code}`,
  )
  return errorOf(answer).details ?? {}
}
