import { runProvisioner } from '../provisioning/process.ts'

/** Run the provisioner until a signal; what is given here goes before the environment. */
export const provisioner = ({ port, concurrency }: { port?: number; concurrency?: string }): Promise<void> =>
  runProvisioner({
    ...process.env,
    ...(port === undefined ? {} : { STRATUM_PROVISIONER_PORT: String(port) }),
    ...(concurrency === undefined ? {} : { STRATUM_PROVISIONER_CONCURRENCY: concurrency }),
  })
