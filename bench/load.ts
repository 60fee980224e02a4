/** A small HTTP/1.1 load generator: so many connections, each sending its next request when the last was answered. */

import { readFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'

/** A request as it goes over the wire. */
export const rawRequest = (path: string, headers: Record<string, string>): string =>
  `GET ${path} HTTP/1.1\r\n${Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`

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
