/**
 * The error catalogue: every code the product answers with, its HTTP status and its sentence.
 *
 * SQL raises the same codes (`stratum.fail`), HTTP answers them, and the SDK rebuilds the same
 * class from them, so `catch (error) { if (error instanceof TenantNotFoundError) … }` reads alike in
 * the embedded library and against a server. A sentence may carry `{name}`, filled from `details`.
 */
export const CATALOGUE = {
  // 400: the request cannot be read
  INVALID_JSON: [400, 'The body is not valid JSON. Send one JSON object with content-type application/json.'],
  INVALID_REQUEST: [400, 'The path, query or headers of this request are not valid: {reason}. See details.issues.'],
  REQUEST_NOT_FORWARDABLE: [400, 'This request cannot be forwarded: {reason}.'],
  INVALID_CURSOR: [400, 'The cursor does not belong to this list. Take next_cursor from the previous page of the same request.'],
  CREDENTIALS_AMBIGUOUS: [400, 'Send one credential: either the Authorization header or x-api-key, not both.'],
  TENANT_CONTEXT_REQUIRED: [
    400,
    'This query ran for no tenant. Send it through a tenant handle, or begin its transaction with select stratum_guard.enter(tenant_id).',
  ],
  TENANT_REQUIRED: [400, 'This credential is bound to no tenant. Name one by host, path or x-tenant-id.'],
  // 401: nobody known asks
  AUTHENTICATION_REQUIRED: [401, 'Send an API key (x-api-key) or a bearer token (Authorization: Bearer …).'],
  ISSUER_OUTDATED: [401, 'The issuer of this token was changed or deleted. Sign in again.'],
  TOKEN_INVALID: [401, 'The bearer token was refused: {reason}.'],
  GATEWAY_CONTEXT_REQUIRED: [401, 'This app answers what comes through its gateway only. Send the request to the public address of the app.'],
  API_KEY_INVALID: [401, 'The API key is unknown, revoked or expired. Ask an admin for a new one.'],
  // 403: known, and not allowed
  SCOPE_REQUIRED: [403, 'This needs the scope {scope}. Use a credential that holds it.'],
  GLOBAL_ADMIN_REQUIRED: [403, 'This reaches beyond any tenant and needs a global credential with the scope admin.'],
  DATA_ROLE_REFUSED: [
    403,
    "Tenants' rows are not served to the role {role}: {reason}. Connect as stratum_app, or as a role that is no superuser, has no BYPASSRLS and owns none of the tables.",
  ],
  GATEWAY_CONTEXT_INVALID: [403, 'The Stratum-Context of this request was refused: {reason}. Send the request through the gateway.'],
  SCOPE_ESCALATION: [403, 'A credential cannot grant scopes it does not hold: {scopes}.'],
  ISSUER_OUTLIVES_KEY: [403, 'An API key that expires cannot make an issuer, which would outlive it. Use a key that does not expire, or a token.'],
  TENANT_MISMATCH: [403, 'The request names two different tenants. Let host, path, header and token agree.'],
  TENANT_HEADER_UNTRUSTED: [403, 'x-tenant-id is read from API keys only, and where this service reads it at all. Remove it, or call with an API key.'],
  TENANT_SUSPENDED: [403, 'This tenant is suspended. An admin of its parent can resume it.'],
  PERMISSION_REVOCATION_DENIED: [403, 'This policy is PERMANENT: it is neither changed nor deleted, only purged with its tenant.'],
  // 404: not there, or not yours to see
  ROUTE_NOT_FOUND: [404, 'There is no such route. See /api/v1/openapi.json or /docs.'],
  TENANT_NOT_FOUND: [404, 'No such tenant within your reach. For a change of its parent, status or strategy that includes its parent.'],
  CONFIG_NOT_FOUND: [404, 'This tenant sets no config entry with this key itself. See its inheritance view for where the value comes from.'],
  PERMISSION_NOT_FOUND: [404, 'This tenant has no permission policy with this id.'],
  API_KEY_NOT_FOUND: [404, 'No such API key within your reach.'],
  ISSUER_NOT_FOUND: [404, 'No such stored issuer within your reach.'],
  EXTERNAL_ID_NOT_FOUND: [404, 'No issuer of this name calls the tenant by this. List its external ids to see which do.'],
  DOMAIN_NOT_FOUND: [404, 'This tenant has no claim to the domain {domain}. See its list of domains.'],
  JOB_NOT_FOUND: [404, 'No such job within your reach.'],
  // 409: the state forbids it
  JOB_INVALID_STATE: [409, 'The job is {status}; this needs {required}.'],
  PLACE_NOT_OURS: [
    409,
    'The {kind} {name} exists and was not made for this tenant, so it is neither used nor dropped. Remove or rename it, then retry the job.',
  ],
  PLACE_REFUSED: [409, 'The server refused to make or drop the {kind} {name}: {reason}. Put that right, then retry the job.'],
  DATABASE_LIMIT_REACHED: [409, 'This server holds {count} databases of at most {limit}. Use SCHEMA_PER_TENANT, or raise STRATUM_DATABASE_LIMIT.'],
  FLEET_MIGRATION_RUNNING: [409, 'Another run migrates the places of these tenants right now. Wait for it to end, or stop it.'],
  MIGRATION_FAILED: [409, 'The migration {migration} failed for {place}: {reason}.'],
  ISOLATION_CHANGE_RUNNING: [409, 'The isolation of this tenant is being changed already, by job {job_id}. Wait for it or cancel it.'],
  ISOLATION_UNCHANGED: [409, 'The tenant is isolated by {isolation_strategy} already.'],
  TENANT_PARENT_NOT_IN_BATCH: [422, 'The batch makes no tenant {parent_slug} for {slug} to be under. Add it, or give parent_id.'],
  TENANT_SLUG_TAKEN: [409, 'The slug {slug} is taken. Choose another.'],
  TENANT_INVALID_STATE: [409, 'Tenant {tenant_id} is {status}; this needs {required}.'],
  TENANT_HAS_CHILDREN: [409, 'Tenants below this one stand against it. Include them (cascade: true, of a purge subtree: true), or deal with them first.'],
  TENANT_CYCLE_DETECTED: [409, 'A tenant cannot move under itself or its own descendant. Choose another parent.'],
  TENANT_DEPTH_EXCEEDED: [409, 'The tree may hold {maximum} levels and this would need {levels}. Choose a parent nearer the root.'],
  TENANT_ELSEWHERE: [409, "The tenant's rows are in the database {database_name}. A tenant handle goes there by itself."],
  ISSUER_EXISTS: [409, 'There is an issuer of this name for this audience. Delete that one first (a global admin can), or take it out of STRATUM_ISSUERS.'],
  ISSUERS_FULL: [409, 'A tenant may have at most {maximum} issuers. Delete some first.'],
  EXTERNAL_ID_TAKEN: [409, 'Tokens of this issuer mean another tenant by {external_id}. Delete it there first.'],
  EXTERNAL_IDS_FULL: [409, 'A tenant may have at most {maximum} external ids. Delete some first.'],
  VERSION_MISMATCH: [409, 'Something changed since this was shown, and it would do something else now. Ask for the dry run again.'],
  DRY_RUN_TOO_LARGE: [
    409,
    'A dry run or If-Match compares at most {maximum} {what}, and here it would be more. Do it in parts (fewer keys, a tenant further down), or without.',
  ],
  CONFIG_DEFINITION_CONFLICT: [409, 'Tenant {tenant_id} holds a value for {key} that this definition refuses: {reason}. Change the value or the definition.'],
  CONFIG_DEFINITIONS_CHANGED: [409, 'The config definitions changed meanwhile. Try again.'],
  PERMISSIONS_FULL: [409, 'A tenant may have at most {maximum_policies} permission policies. Delete some first.'],
  CONFIG_FULL: [409, 'A tenant may set at most {maximum_entries} entries of {maximum_bytes} bytes in all. Delete some first.'],
  CONFIG_LOCKED: [409, 'An ancestor has locked this key. The lock must go there before it can be set here.'],
  PERMISSION_LOCKED: [409, 'An ancestor holds this permission LOCKED. It must change there before it can be set here.'],
  PERMISSION_NOT_DELEGATED: [409, 'An ancestor passes this permission on as INHERITED: below it only mode INHERITED may be written.'],
  DOMAIN_EXISTS: [409, 'The tenant claims {domain} already. Publish the TXT record of that claim and verify it.'],
  DOMAINS_FULL: [409, 'A tenant may claim at most {maximum_domains} domains. Delete some first.'],
  DOMAIN_TAKEN: [409, 'Another tenant holds {domain} verified. It must delete its claim, or its TXT record be gone for 7 days.'],
  DOMAIN_NOT_VERIFIED: [409, 'No TXT record of {txt_name} reads {txt_value}. Publish it, wait until DNS shows it, and verify again.'],
  PERMISSION_EXISTS: [409, 'The tenant already has a policy for this key. Update that one.'],
  PROVISIONING_UNAVAILABLE: [
    409,
    'This is work for the provisioner, whose queue is not installed here (isolation {isolation_strategy}). Install it: npx stratum setup.',
  ],
  // 410, 413, 422
  TENANT_ARCHIVED: [410, 'This tenant is archived. An admin of its parent can resume it.'],
  ANSWER_TOO_LARGE: [413, 'The answer would be too large. Ask for less at once, with limit where there is one.'],
  BODY_TOO_LARGE: [413, 'The body is larger than {maximum_bytes} bytes. Send less at once.'],
  CONFIG_INVALID: [422, 'The value for {key} does not fit its definition: {reason}.'],
  DOMAIN_NOT_ALLOWED: [422, 'This domain cannot be claimed: {reason}.'],
  MOMENT_BEFORE_TENANT: [422, 'The tenant did not exist at {at}; it was created at {created_at}.'],
  IDEMPOTENCY_KEY_REUSED: [422, 'This Idempotency-Key was used for another request. Take a new key for a new request.'],
  MIGRATION_INVALID: [422, 'The migration {migration} cannot be applied: {reason}.'],
  TABLE_NOT_MANAGEABLE: [422, 'The table {table} cannot hold rows of tenants as it is: {reason}.'],
  VALIDATION_FAILED: [422, 'The input is not valid: {reason}. See details.issues.'],
  // 429: too often
  RATE_LIMITED: [429, 'Too many requests {what}. Try again in {retry_after} seconds.'],
  // 5xx: ours
  INTERNAL_ERROR: [500, 'Something went wrong on our side. Quote the request id when you report it.'],
  GATEWAY_CONTEXT_TRUNCATED: [
    500,
    'The context of this tenant was too large for a header, so its config and permissions are not in it. Ask the service for them, or name fewer keys in STRATUM_CONTEXT_CONFIG.',
  ],
  COPY_DIFFERS: [500, 'The copy of {table} differs from its source. Nothing was switched over; retry the job.'],
  SECRET_UNREADABLE: [500, 'A stored secret cannot be decrypted with the configured master keys.'],
  MASTER_KEY_MISSING: [500, 'This needs a master key. Set STRATUM_MASTER_KEYS, or pass masterKeys.'],
  API_KEY_SECRET_MISSING: [500, 'This needs an API key secret. Set STRATUM_API_KEY_SECRETS, or pass apiKeySecrets.'],
  CONFIGURATION_INVALID: [500, '{reason}'],
  DATABASE_ROLE_REFUSED: [500, 'The service connects with a role that may bypass row security. Use the stratum_control role that npx stratum setup makes.'],
  ORIGIN_INVALID: [502, 'The origin configured for this tenant cannot be used; the log says why. Correct the config entry stratum.origin.'],
  ORIGIN_LOOP: [502, 'The origin sent the request back here. Let STRATUM_ORIGIN, or the config entry stratum.origin, name the application itself.'],
  ORIGIN_TIMEOUT: [504, 'The origin did not begin to answer within {seconds} seconds.'],
  ORIGIN_UNREACHABLE: [502, 'The origin cannot be reached, or its answer is not HTTP.'],
  TENANT_MAINTENANCE: [503, 'This tenant is under maintenance. Try again later.'],
  TENANT_UNAVAILABLE: [503, 'The place of tenant {tenant_id} is being made or changed. Try again shortly.'],
  DATABASE_OUTDATED: [503, 'The database lacks what this version calls. Bring it up to date: npx stratum setup --database-url …'],
  DATABASE_UNAVAILABLE: [503, 'The database cannot be reached. Try again shortly.'],
  DATABASE_BUSY: [503, 'The database was too busy to answer in time. Nothing was changed; try again shortly.'],
  DNS_UNAVAILABLE: [503, 'The DNS resolver gave no usable answer: {reason}. Nothing was changed; try again shortly.'],
  SERVER_UNREACHABLE: [503, 'The server did not answer: {reason}.'],
} as const satisfies Record<string, readonly [status: number, message: string]>

/** A stable code of the catalogue. */
export type ErrorCode = keyof typeof CATALOGUE

/** Facts about an error, JSON only, never an internal message. */
export type ErrorDetails = Record<string, unknown>

/** True for a code this version knows. */
export const isErrorCode = (code: unknown): code is ErrorCode => typeof code === 'string' && Object.hasOwn(CATALOGUE, code)

const fill = (message: string, details: ErrorDetails) => message.replace(/\{(\w+)\}/g, (_, name: string) => String(details[name] ?? 'unknown'))

/** An error of the catalogue. `status` is the HTTP status; `cause` never leaves the process. */
export class StratumError extends Error {
  readonly code: ErrorCode
  readonly status: number
  readonly details: ErrorDetails
  /** Seconds after which a retry makes sense; set on 429 and 503. */
  readonly retryAfter: number | undefined

  constructor(code: ErrorCode, details: ErrorDetails = {}, options?: { cause?: unknown; message?: string }) {
    const [status, message] = CATALOGUE[code]
    super(options?.message ?? fill(message, details), options?.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'StratumError'
    this.code = code
    this.status = status
    // The breaker knows how long it will be; all others say the shortest, so that it always stands there.
    this.details = code === 'DATABASE_UNAVAILABLE' ? { retry_after: 1, ...details } : details
    this.retryAfter = typeof this.details['retry_after'] === 'number' ? this.details['retry_after'] : status === 503 ? 1 : undefined
  }
}
