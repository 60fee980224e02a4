/** The provisioner as a process that kills itself without warning at the step of its jobs that `DIES_AT` counts. */
import { runProvisioner } from '../../src/provisioning/process.ts'

let left = Number(process.env['DIES_AT'])

await runProvisioner(process.env, {
  step: async () => {
    if (--left === 0) process.kill(process.pid, 'SIGKILL')
  },
})
