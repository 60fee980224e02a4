/** Ends what this process started when it cannot do so itself any more. Linux and macOS. */
import { spawn } from 'node:child_process'
import type { Socket } from 'node:net'

/**
 * Runs a shell command once this process is gone, however it ended: a shell waits on a pipe that only we hold.
 * It has a group of its own, to survive what kills ours, and does not keep this process alive.
 *
 * @param command what to run, for example `kill -INT 4711`
 * @param options.user whose rights it needs, if not this process's
 * @param options.log receives a line when there can be no watchdog
 * @returns calls it off: to be done when what it would end has ended, as its id may be given to another process
 */
export function onceWeAreGone(
  command: string,
  { user, log }: { user?: { readonly uid: number; readonly gid: number } | undefined; log?: ((line: string) => void) | undefined } = {},
): () => void {
  const shell = spawn('/bin/sh', ['-c', `read -r _; ${command}`], { ...user, cwd: '/', stdio: ['pipe', 'ignore', 'ignore'], detached: true })
  shell.on('error', (error) => log?.(`no watchdog for "${command}": ${error.message}`))
  shell.stdin.on('error', (error) => log?.(`watchdog for "${command}": ${error.message}`))
  shell.unref()
  ;(shell.stdin as Socket).unref()
  return () => void shell.kill('SIGKILL')
}
