/**
 * One class for each code of the catalogue, so that callers can use `instanceof`. Each is constructed with
 * `(details?, { cause?, message? }?)`. A test proves that none is missing.
 */
import { type ErrorCode, type ErrorDetails, StratumError } from './errors.ts'

type Options = { cause?: unknown; message?: string }
type CodedClass = new (details?: ErrorDetails, options?: Options) => StratumError

const classes = new Map<ErrorCode, CodedClass>()

function coded(code: ErrorCode, name: string): CodedClass {
  const Class = class extends StratumError {
    constructor(details: ErrorDetails = {}, options?: Options) {
      super(code, details, options)
      this.name = name
    }
  }
  classes.set(code, Class)
  return Class
}

/** The error of this code as an instance of its own class. */
export const stratumError = (code: ErrorCode, details: ErrorDetails = {}, options?: Options): StratumError =>
  new (classes.get(code) ?? coded(code, 'StratumError'))(details, options)

/** The class of a code. */
export const errorClass = (code: ErrorCode): CodedClass | undefined => classes.get(code)

/** INVALID_JSON */
export const InvalidJSONError = coded('INVALID_JSON', 'InvalidJSONError')
/** INVALID_REQUEST */
export const InvalidRequestError = coded('INVALID_REQUEST', 'InvalidRequestError')
/** INVALID_CURSOR */
export const InvalidCursorError = coded('INVALID_CURSOR', 'InvalidCursorError')
/** CREDENTIALS_AMBIGUOUS */
export const CredentialsAmbiguousError = coded('CREDENTIALS_AMBIGUOUS', 'CredentialsAmbiguousError')
/** TENANT_REQUIRED */
export const TenantRequiredError = coded('TENANT_REQUIRED', 'TenantRequiredError')
/** AUTHENTICATION_REQUIRED */
export const AuthenticationRequiredError = coded('AUTHENTICATION_REQUIRED', 'AuthenticationRequiredError')
/** TOKEN_INVALID */
export const TokenInvalidError = coded('TOKEN_INVALID', 'TokenInvalidError')
/** API_KEY_INVALID */
export const ApiKeyInvalidError = coded('API_KEY_INVALID', 'ApiKeyInvalidError')
/** SCOPE_REQUIRED */
export const ScopeRequiredError = coded('SCOPE_REQUIRED', 'ScopeRequiredError')
/** GLOBAL_ADMIN_REQUIRED */
export const GlobalAdminRequiredError = coded('GLOBAL_ADMIN_REQUIRED', 'GlobalAdminRequiredError')
/** SCOPE_ESCALATION */
export const ScopeEscalationError = coded('SCOPE_ESCALATION', 'ScopeEscalationError')
/** TENANT_MISMATCH */
export const TenantMismatchError = coded('TENANT_MISMATCH', 'TenantMismatchError')
/** TENANT_HEADER_UNTRUSTED */
export const TenantHeaderUntrustedError = coded('TENANT_HEADER_UNTRUSTED', 'TenantHeaderUntrustedError')
/** TENANT_SUSPENDED */
export const TenantSuspendedError = coded('TENANT_SUSPENDED', 'TenantSuspendedError')
/** PERMISSION_REVOCATION_DENIED */
export const PermissionRevocationDeniedError = coded('PERMISSION_REVOCATION_DENIED', 'PermissionRevocationDeniedError')
/** ROUTE_NOT_FOUND */
export const RouteNotFoundError = coded('ROUTE_NOT_FOUND', 'RouteNotFoundError')
/** TENANT_NOT_FOUND */
export const TenantNotFoundError = coded('TENANT_NOT_FOUND', 'TenantNotFoundError')
/** CONFIG_NOT_FOUND */
export const ConfigNotFoundError = coded('CONFIG_NOT_FOUND', 'ConfigNotFoundError')
/** PERMISSION_NOT_FOUND */
export const PermissionNotFoundError = coded('PERMISSION_NOT_FOUND', 'PermissionNotFoundError')
/** API_KEY_NOT_FOUND */
export const ApiKeyNotFoundError = coded('API_KEY_NOT_FOUND', 'ApiKeyNotFoundError')
/** TENANT_PARENT_NOT_IN_BATCH */
export const TenantParentNotInBatchError = coded('TENANT_PARENT_NOT_IN_BATCH', 'TenantParentNotInBatchError')
/** TENANT_SLUG_TAKEN */
export const TenantSlugTakenError = coded('TENANT_SLUG_TAKEN', 'TenantSlugTakenError')
/** TENANT_INVALID_STATE */
export const TenantInvalidStateError = coded('TENANT_INVALID_STATE', 'TenantInvalidStateError')
/** TENANT_HAS_CHILDREN */
export const TenantHasChildrenError = coded('TENANT_HAS_CHILDREN', 'TenantHasChildrenError')
/** TENANT_CYCLE_DETECTED */
export const TenantCycleDetectedError = coded('TENANT_CYCLE_DETECTED', 'TenantCycleDetectedError')
/** TENANT_DEPTH_EXCEEDED */
export const TenantDepthExceededError = coded('TENANT_DEPTH_EXCEEDED', 'TenantDepthExceededError')
/** CONFIG_LOCKED */
export const ConfigLockedError = coded('CONFIG_LOCKED', 'ConfigLockedError')
/** PERMISSION_LOCKED */
export const PermissionLockedError = coded('PERMISSION_LOCKED', 'PermissionLockedError')
/** PERMISSION_NOT_DELEGATED */
export const PermissionNotDelegatedError = coded('PERMISSION_NOT_DELEGATED', 'PermissionNotDelegatedError')
/** PERMISSION_EXISTS */
export const PermissionExistsError = coded('PERMISSION_EXISTS', 'PermissionExistsError')
/** PROVISIONING_UNAVAILABLE */
export const ProvisioningUnavailableError = coded('PROVISIONING_UNAVAILABLE', 'ProvisioningUnavailableError')
/** TENANT_ARCHIVED */
export const TenantArchivedError = coded('TENANT_ARCHIVED', 'TenantArchivedError')
/** BODY_TOO_LARGE */
export const BodyTooLargeError = coded('BODY_TOO_LARGE', 'BodyTooLargeError')
/** VALIDATION_FAILED */
export const ValidationFailedError = coded('VALIDATION_FAILED', 'ValidationFailedError')
/** INTERNAL_ERROR */
export const InternalError = coded('INTERNAL_ERROR', 'InternalError')
/** SECRET_UNREADABLE */
export const SecretUnreadableError = coded('SECRET_UNREADABLE', 'SecretUnreadableError')
/** MASTER_KEY_MISSING */
export const MasterKeyMissingError = coded('MASTER_KEY_MISSING', 'MasterKeyMissingError')
/** API_KEY_SECRET_MISSING */
export const ApiKeySecretMissingError = coded('API_KEY_SECRET_MISSING', 'ApiKeySecretMissingError')
/** CONFIGURATION_INVALID */
export const ConfigurationInvalidError = coded('CONFIGURATION_INVALID', 'ConfigurationInvalidError')
/** DATABASE_ROLE_REFUSED */
export const DatabaseRoleRefusedError = coded('DATABASE_ROLE_REFUSED', 'DatabaseRoleRefusedError')
/** DATABASE_OUTDATED */
export const DatabaseOutdatedError = coded('DATABASE_OUTDATED', 'DatabaseOutdatedError')
/** DATABASE_UNAVAILABLE */
export const DatabaseUnavailableError = coded('DATABASE_UNAVAILABLE', 'DatabaseUnavailableError')
/** DATABASE_BUSY */
export const DatabaseBusyError = coded('DATABASE_BUSY', 'DatabaseBusyError')
/** SERVER_UNREACHABLE */
export const ServerUnreachableError = coded('SERVER_UNREACHABLE', 'ServerUnreachableError')
/** VERSION_MISMATCH */
export const VersionMismatchError = coded('VERSION_MISMATCH', 'VersionMismatchError')
/** DRY_RUN_TOO_LARGE */
export const DryRunTooLargeError = coded('DRY_RUN_TOO_LARGE', 'DryRunTooLargeError')
/** MOMENT_BEFORE_TENANT */
export const MomentBeforeTenantError = coded('MOMENT_BEFORE_TENANT', 'MomentBeforeTenantError')
/** IDEMPOTENCY_KEY_REUSED */
export const IdempotencyKeyReusedError = coded('IDEMPOTENCY_KEY_REUSED', 'IdempotencyKeyReusedError')
/** CONFIG_INVALID */
export const ConfigInvalidError = coded('CONFIG_INVALID', 'ConfigInvalidError')
/** CONFIG_DEFINITION_CONFLICT */
export const ConfigDefinitionConflictError = coded('CONFIG_DEFINITION_CONFLICT', 'ConfigDefinitionConflictError')
/** CONFIG_DEFINITIONS_CHANGED */
export const ConfigDefinitionsChangedError = coded('CONFIG_DEFINITIONS_CHANGED', 'ConfigDefinitionsChangedError')
/** CONFIG_FULL */
export const ConfigFullError = coded('CONFIG_FULL', 'ConfigFullError')
/** ANSWER_TOO_LARGE */
export const AnswerTooLargeError = coded('ANSWER_TOO_LARGE', 'AnswerTooLargeError')
/** DOMAIN_NOT_FOUND */
export const DomainNotFoundError = coded('DOMAIN_NOT_FOUND', 'DomainNotFoundError')
/** DOMAIN_EXISTS */
export const DomainExistsError = coded('DOMAIN_EXISTS', 'DomainExistsError')
/** DOMAINS_FULL */
export const DomainsFullError = coded('DOMAINS_FULL', 'DomainsFullError')
/** DOMAIN_TAKEN */
export const DomainTakenError = coded('DOMAIN_TAKEN', 'DomainTakenError')
/** DOMAIN_NOT_VERIFIED */
export const DomainNotVerifiedError = coded('DOMAIN_NOT_VERIFIED', 'DomainNotVerifiedError')
/** DOMAIN_NOT_ALLOWED */
export const DomainNotAllowedError = coded('DOMAIN_NOT_ALLOWED', 'DomainNotAllowedError')
/** DNS_UNAVAILABLE */
export const DnsUnavailableError = coded('DNS_UNAVAILABLE', 'DnsUnavailableError')
/** ISSUER_OUTDATED */
export const IssuerOutdatedError = coded('ISSUER_OUTDATED', 'IssuerOutdatedError')
/** ISSUER_OUTLIVES_KEY */
export const IssuerOutlivesKeyError = coded('ISSUER_OUTLIVES_KEY', 'IssuerOutlivesKeyError')
/** ISSUER_NOT_FOUND */
export const IssuerNotFoundError = coded('ISSUER_NOT_FOUND', 'IssuerNotFoundError')
/** ISSUER_EXISTS */
export const IssuerExistsError = coded('ISSUER_EXISTS', 'IssuerExistsError')
/** ISSUERS_FULL */
export const IssuersFullError = coded('ISSUERS_FULL', 'IssuersFullError')
/** EXTERNAL_ID_NOT_FOUND */
export const ExternalIdNotFoundError = coded('EXTERNAL_ID_NOT_FOUND', 'ExternalIdNotFoundError')
/** EXTERNAL_ID_TAKEN */
export const ExternalIdTakenError = coded('EXTERNAL_ID_TAKEN', 'ExternalIdTakenError')
/** EXTERNAL_IDS_FULL */
export const ExternalIdsFullError = coded('EXTERNAL_IDS_FULL', 'ExternalIdsFullError')
/** PERMISSIONS_FULL */
export const PermissionsFullError = coded('PERMISSIONS_FULL', 'PermissionsFullError')
/** TENANT_CONTEXT_REQUIRED */
export const TenantContextRequiredError = coded('TENANT_CONTEXT_REQUIRED', 'TenantContextRequiredError')
/** DATA_ROLE_REFUSED */
export const DataRoleRefusedError = coded('DATA_ROLE_REFUSED', 'DataRoleRefusedError')
/** JOB_NOT_FOUND */
export const JobNotFoundError = coded('JOB_NOT_FOUND', 'JobNotFoundError')
/** JOB_INVALID_STATE */
export const JobInvalidStateError = coded('JOB_INVALID_STATE', 'JobInvalidStateError')
/** PLACE_NOT_OURS */
export const PlaceNotOursError = coded('PLACE_NOT_OURS', 'PlaceNotOursError')
/** PLACE_REFUSED */
export const PlaceRefusedError = coded('PLACE_REFUSED', 'PlaceRefusedError')
/** DATABASE_LIMIT_REACHED */
export const DatabaseLimitReachedError = coded('DATABASE_LIMIT_REACHED', 'DatabaseLimitReachedError')
/** ISOLATION_CHANGE_RUNNING */
export const IsolationChangeRunningError = coded('ISOLATION_CHANGE_RUNNING', 'IsolationChangeRunningError')
/** ISOLATION_UNCHANGED */
export const IsolationUnchangedError = coded('ISOLATION_UNCHANGED', 'IsolationUnchangedError')
/** TENANT_ELSEWHERE */
export const TenantElsewhereError = coded('TENANT_ELSEWHERE', 'TenantElsewhereError')
/** FLEET_MIGRATION_RUNNING */
export const FleetMigrationRunningError = coded('FLEET_MIGRATION_RUNNING', 'FleetMigrationRunningError')
/** MIGRATION_FAILED */
export const MigrationFailedError = coded('MIGRATION_FAILED', 'MigrationFailedError')
/** MIGRATION_INVALID */
export const MigrationInvalidError = coded('MIGRATION_INVALID', 'MigrationInvalidError')
/** TABLE_NOT_MANAGEABLE */
export const TableNotManageableError = coded('TABLE_NOT_MANAGEABLE', 'TableNotManageableError')
/** COPY_DIFFERS */
export const CopyDiffersError = coded('COPY_DIFFERS', 'CopyDiffersError')
/** TENANT_UNAVAILABLE */
export const TenantUnavailableError = coded('TENANT_UNAVAILABLE', 'TenantUnavailableError')
/** RATE_LIMITED */
export const RateLimitedError = coded('RATE_LIMITED', 'RateLimitedError')
/** REQUEST_NOT_FORWARDABLE */
export const RequestNotForwardableError = coded('REQUEST_NOT_FORWARDABLE', 'RequestNotForwardableError')
/** ORIGIN_INVALID */
export const OriginInvalidError = coded('ORIGIN_INVALID', 'OriginInvalidError')
/** ORIGIN_LOOP */
export const OriginLoopError = coded('ORIGIN_LOOP', 'OriginLoopError')
/** ORIGIN_TIMEOUT */
export const OriginTimeoutError = coded('ORIGIN_TIMEOUT', 'OriginTimeoutError')
/** ORIGIN_UNREACHABLE */
export const OriginUnreachableError = coded('ORIGIN_UNREACHABLE', 'OriginUnreachableError')
/** TENANT_MAINTENANCE */
export const TenantMaintenanceError = coded('TENANT_MAINTENANCE', 'TenantMaintenanceError')
/** GATEWAY_CONTEXT_REQUIRED */
export const GatewayContextRequiredError = coded('GATEWAY_CONTEXT_REQUIRED', 'GatewayContextRequiredError')
/** GATEWAY_CONTEXT_INVALID */
export const GatewayContextInvalidError = coded('GATEWAY_CONTEXT_INVALID', 'GatewayContextInvalidError')
/** GATEWAY_CONTEXT_TRUNCATED */
export const GatewayContextTruncatedError = coded('GATEWAY_CONTEXT_TRUNCATED', 'GatewayContextTruncatedError')
