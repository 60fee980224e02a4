import { storedIssuerSchema } from '../../auth/issuers.ts'
import { stratumError } from '../../core/error-classes.ts'
import { operation } from '../operation.ts'
import * as contract from './contract.ts'

/** Paths and messages name members of the input, which may be as long as the body allows. */
const brief = (text: string) => text.slice(0, 300)

/** Keys and key set are judged here, by the rules that hold for issuers of the environment. @throws VALIDATION_FAILED */
function checked(input: object, development: boolean) {
  const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined))
  const parsed = storedIssuerSchema(development).safeParse(given)
  if (parsed.success) return parsed.data
  const issues = parsed.error.issues.slice(0, 20).map(({ path, message }) => ({ path: brief(path.join('.')), message: brief(message) }))
  const [{ path, message } = { path: '', message: 'unknown' }] = issues
  throw stratumError('VALIDATION_FAILED', { reason: `${path === '' ? '' : `${path}: `}${message.replace(/\.$/, '')}`, issues })
}

/** SQL does not know the issuers of the environment, of which none may have a twin: it would never be met. */
export const createIssuer = operation(contract.createIssuer, async ({ tokens }, input, call) => {
  const { tenant_id, issuer, audience, ...settings } = checked(input, tokens.development)
  const created = await call({ tenant_id, issuer, audience, settings, of_environment: tokens.isOfEnvironment(issuer, audience) })
  tokens.forgetNamed(issuer)
  return created
})

export const deleteIssuer = operation(contract.deleteIssuer, async ({ tokens }, input, call) => {
  const deleted = (await call(input)) as contract.Issuer
  tokens.forget(input.id)
  tokens.forgetNamed(deleted.issuer)
  return deleted
})
