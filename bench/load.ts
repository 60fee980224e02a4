/** A small HTTP/1.1 load generator: so many connections, each sending its next request when the last was answered. */

import { readFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'

/** A request as it goes over the wire; a body, of ASCII alone, is sent as JSON. */
export function rawRequest(path: string, headers: Record<string, string>, { method = 'GET', body }: { method?: string; body?: object } = {}): string {
  const content = body === undefined ? '' : JSON.stringify(body)
  const all = { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': String(content.length) }) }
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${content}`
}

/** An answer as it came over the wire. */
export interface Answer {
  status: number
  /** By name in lower case. */
  headers: ReadonlyMap<string, string>
  /** Of ASCII alone. */
  body: string
}

/** True when a whole answer is in the text: its length is said, or its last chunk is there. */
function isWhole(text: string): boolean {
  const end = text.indexOf('\r\n\r\n')
  if (end === -1) return false
  const length = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, end))?.[1]
  return length === undefined ? text.endsWith('0\r\n\r\n') : text.length >= end + 4 + Number(length)
}

function ask(socket: Socket, request: string): Promise<string> {
  return new Promise((answered, failed) => {
    let text = ''
    const read = (chunk: string) => {
      text += chunk
      if (!isWhole(text)) return
      socket.off('data', read).off('error', failed).off('close', closed)
      answered(text)
    }
    const closed = () => failed(new Error('The connection was closed.'))
    socket.on('data', read).once('error', failed).once('close', closed)
    socket.write(request)
  })
}

function open(port: number): Promise<Socket> {
  return new Promise((opened, failed) => {
    const socket = connect(port, '127.0.0.1').setEncoding('latin1').setNoDelay().once('error', failed)
    socket.once('connect', () => opened(socket.off('error', failed)))
  })
}

function read(text: string): Answer {
  const end = text.indexOf('\r\n\r\n')
  const [first = '', ...lines] = text.slice(0, end).split('\r\n')
  const headers = new Map(lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]))
  const content = text.slice(end + 4)
  // A chunk is a line with its length, and the content.
  const body = headers.has('content-length') ? content : content.replace(/^[0-9a-f]+\r\n|\r\n[0-9a-f]+\r\n(\r\n)?/gi, '')
  return { status: Number(first.split(' ')[1]), headers, body }
}

/** One connection: opened when it is first needed, and again after it was closed. */
export class Connection {
  readonly #port: number
  #socket: Socket | undefined

  constructor(port: number) {
    this.#port = port
  }

  /** Send a request and wait for its answer, whatever its status; one at a time. @throws when the connection breaks */
  async ask(request: string): Promise<Answer> {
    try {
      // Between requests nobody else would hear that it was closed.
      if (!this.#socket || this.#socket.destroyed) this.#socket = (await open(this.#port)).on('error', () => {})
      return read(await ask(this.#socket, request))
    } catch (error) {
      this.close()
      throw error
    }
  }

  close(): void {
    this.#socket?.destroy()
    this.#socket = undefined
  }
}

/** Send `count` requests over `connections`. @returns milliseconds it took @throws at the first answer that is not 200 */
export async function send(port: number, request: string, count: number, connections: number): Promise<number> {
  const sockets = await Promise.all(Array.from({ length: connections }, () => open(port)))
  let left = count
  const started = performance.now()
  try {
    await Promise.all(
      sockets.map(async (socket) => {
        while (left-- > 0) {
          const answer = await ask(socket, request)
          if (!answer.startsWith('HTTP/1.1 200')) throw new Error(answer.slice(0, 500))
        }
      }),
    )
    return performance.now() - started
  } finally {
    for (const socket of sockets) socket.destroy()
  }
}

const TICKS_A_SECOND = 100

/** Milliseconds of CPU that a process has used so far, as Linux counts it. */
export async function cpuOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  const [utime, stime] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 13)
    .map(Number)
  return (((utime ?? 0) + (stime ?? 0)) * 1000) / TICKS_A_SECOND
}
