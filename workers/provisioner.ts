/** The provisioner as a process of its own: read the environment, start, stop at a signal. */
import { runProvisioner } from '../src/provisioning/process.ts'

await runProvisioner(process.env)
