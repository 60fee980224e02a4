import * as z from 'zod'

/** What a credential may do: `read < write < admin`, and `secrets:read`, which `admin` contains. */
export const SCOPES = ['read', 'write', 'admin', 'secrets:read'] as const
/** One of {@link SCOPES}. */
export const Scope = z.enum(SCOPES)
export type Scope = z.infer<typeof Scope>

const CONTAINS: Record<Scope, readonly Scope[]> = {
  read: ['read'],
  write: ['read', 'write'],
  admin: ['read', 'write', 'admin', 'secrets:read'],
  'secrets:read': ['secrets:read'],
}

/** True when holding `held` allows what `needed` asks. `stratum.holds_scope` is the same rule in SQL. */
export const holdsScope = (held: readonly Scope[], needed: Scope): boolean => held.some((scope) => CONTAINS[scope].includes(needed))

/** The scopes of `asked` that `allowed` covers: a token gets what its claim and its issuer both grant. */
export const intersectScopes = (asked: readonly string[], allowed: readonly Scope[]): Scope[] =>
  SCOPES.filter(
    (scope) => allowed.some((a) => CONTAINS[a].includes(scope)) && asked.some((a) => Object.hasOwn(CONTAINS, a) && CONTAINS[a as Scope].includes(scope)),
  )
