/**
 * The body of a fetched answer as text, of so many bytes at most; read no longer than `signal` lets it be.
 * @throws an Error without a code of the catalogue: too large, not UTF-8, broken off, no body
 */
export async function responseText(response: Response, { signal, maximumBytes }: { signal: AbortSignal; maximumBytes: number }): Promise<string> {
  const reader = response.body?.getReader()
  if (!reader) throw new Error('The answer has no body.')
  const stop = () => void reader.cancel(signal.reason).catch(() => undefined)
  // Not every runtime ends a body it has begun to read when the request's signal fires.
  signal.addEventListener('abort', stop)
  try {
    const decoder = new TextDecoder('utf-8', { fatal: true })
    let text = ''
    let size = 0
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      size += part.value.byteLength
      if (size > maximumBytes) throw new Error(`The answer is larger than ${maximumBytes} bytes.`)
      text += decoder.decode(part.value, { stream: true })
    }
    signal.throwIfAborted()
    return text + decoder.decode()
  } finally {
    signal.removeEventListener('abort', stop)
    stop()
  }
}
