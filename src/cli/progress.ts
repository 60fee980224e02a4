/** How far a command is: a bar on a terminal, a line of JSON for each step where asked for, and a few plain lines elsewhere. */
import { type Options, SingleBar } from 'cli-progress'

export interface Progress {
  /** `total` may be known only later, and may grow. `fields` are what a line of JSON says besides. */
  update(done: number, total: number, what: string, fields?: object): void
  /** Something worth a line of its own; `fields` are what it is as JSON. */
  note(line: string, fields: object): void
  end(): void
}

const bar: Options = {
  format: '{bar} {value}/{total} · {eta_formatted} left · {what}',
  stream: process.stderr,
  hideCursor: true,
  clearOnComplete: true,
  // one that ends too early still leaves the terminal as it was
  gracefulExit: true,
  etaBuffer: 50,
}

const jsonLines = (): Progress => {
  const print = (line: object) => console.log(JSON.stringify(line))
  return {
    update: (done, total, what, fields = {}) => print({ event: 'progress', done, total, what, ...fields }),
    note: (_, fields) => print(fields),
    end: () => {},
  }
}

function onTerminal(): Progress {
  const shown = new SingleBar(bar)
  let started = false
  return {
    update(done, total, what) {
      if (!started) shown.start(total, 0, { what })
      started = true
      shown.setTotal(total)
      shown.update(done, { what })
    },
    note(line) {
      if (started) shown.stop()
      started = false
      console.error(line)
    },
    end: () => shown.stop(),
  }
}

/** A log is no terminal: each tenth is enough. */
function plainLines(): Progress {
  let last = -1
  return {
    update(done, total, what) {
      const tenth = total === 0 ? 10 : Math.floor((10 * done) / total)
      if (tenth !== last) console.error(`${done}/${total} · ${what}`)
      last = tenth
    },
    note: (line) => console.error(line),
    end: () => {},
  }
}

/** What to show on: answers go to standard output, progress that is not JSON to standard error. */
export function openProgress({ json = false, terminal = process.stderr.isTTY }: { json?: boolean; terminal?: boolean } = {}): Progress {
  if (json) return jsonLines()
  return terminal ? onTerminal() : plainLines()
}
