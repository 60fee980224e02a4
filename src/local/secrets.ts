/** What `npm run dev` makes up once and keeps beside its data, so that a restart finds everything as it was. */
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { stratumError } from '../core/error-classes.ts'
import { generateRingKey } from '../crypto/key-ring.ts'
import { generatePassword } from '../db/roles.ts'
import { generateContextKey } from '../gateway/context-keys.ts'

const DevSecrets = z.strictObject({
  admin_password: z.string(),
  passwords: z.strictObject({ owner: z.string(), control: z.string(), app: z.string() }),
  master_keys: z.string(),
  api_key_secrets: z.string(),
  jwt_secret: z.string(),
  /** A global admin's key, once made. */
  api_key: z.string().nullable(),
  /** The private keys that contexts are signed with, once the gateway was on: a JSON array. */
  context_keys: z.string().nullable().default(null),
})
export type DevSecrets = z.infer<typeof DevSecrets>

const pathIn = (directory: string) => join(directory, 'secrets.json')

const makeSecrets = (): DevSecrets => ({
  admin_password: generatePassword(),
  passwords: { owner: generatePassword(), control: generatePassword(), app: generatePassword() },
  master_keys: generateRingKey('dev'),
  api_key_secrets: generateRingKey('dev'),
  jwt_secret: generatePassword(),
  api_key: null,
  context_keys: null,
})

/** Keep the secrets; readable by this user only. */
export async function saveSecrets(directory: string, secrets: DevSecrets, { flag = 'w' } = {}): Promise<void> {
  await mkdir(directory, { recursive: true })
  // Keys and data are no part of any repository, wherever the directory stands.
  await writeFile(join(directory, '.gitignore'), '*\n')
  await writeFile(pathIn(directory), `${JSON.stringify(secrets, null, 2)}\n`, { mode: 0o600, flag })
}

/** Make secrets unless another start on the same directory is doing so: its database would be lost without its own. */
async function keepNewSecrets(directory: string): Promise<DevSecrets> {
  const secrets = makeSecrets()
  try {
    await saveSecrets(directory, secrets, { flag: 'wx' })
    return secrets
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return loadSecrets(directory)
  }
}

/** The secrets of a data directory, made at the first start. */
export async function loadSecrets(directory: string): Promise<DevSecrets> {
  let text: string
  try {
    text = await readFile(pathIn(directory), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return keepNewSecrets(directory)
  }
  try {
    return DevSecrets.parse(JSON.parse(text))
  } catch (error) {
    throw stratumError(
      'CONFIGURATION_INVALID',
      { reason: `${pathIn(directory)} cannot be read. Delete ${directory} to start over, or choose another with --data.` },
      { cause: error },
    )
  }
}

/** The secrets with a key that contexts are signed with: the kept one, else a new one, kept from now on. */
export async function ensureContextKeys(directory: string, secrets: DevSecrets): Promise<DevSecrets> {
  if (secrets.context_keys !== null) return secrets
  // A name of its own, as an app that still has the key set of another data directory looks keys up by it.
  const key = await generateContextKey(`dev-${randomBytes(4).toString('hex')}`)
  const kept = { ...secrets, context_keys: JSON.stringify([key]) }
  await saveSecrets(directory, kept)
  return kept
}
