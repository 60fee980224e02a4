/**
 * One class for each code of the catalogue, so that callers can use `instanceof`.
 * A test proves that none is missing.
 */
import { type ErrorCode, type ErrorDetails, StratumError } from './errors.ts'

type Options = { cause?: unknown; message?: string }
type CodedClass = new (details?: ErrorDetails, options?: Options) => StratumError

const classes = new Map<ErrorCode, CodedClass>()

const coded = (code: ErrorCode) =>
  class extends StratumError {
    constructor(details: ErrorDetails = {}, options?: Options) {
      super(code, details, options)
    }
    static register(subclass: CodedClass) {
      classes.set(code, subclass)
    }
  }

/** The error of this code as an instance of its own class. */
export const stratumError = (code: ErrorCode, details: ErrorDetails = {}, options?: Options): StratumError => {
  const Class = classes.get(code)
  return Class ? new Class(details, options) : new StratumError(code, details, options)
}

/** The class registered for a code, if it has one of its own. */
export const errorClass = (code: ErrorCode): CodedClass | undefined => classes.get(code)

export class InvalidJSONError extends coded('INVALID_JSON') {
  static {
    InvalidJSONError.register(InvalidJSONError)
  }
}
export class InvalidRequestError extends coded('INVALID_REQUEST') {
  static {
    InvalidRequestError.register(InvalidRequestError)
  }
}
export class InvalidCursorError extends coded('INVALID_CURSOR') {
  static {
    InvalidCursorError.register(InvalidCursorError)
  }
}
export class CredentialsAmbiguousError extends coded('CREDENTIALS_AMBIGUOUS') {
  static {
    CredentialsAmbiguousError.register(CredentialsAmbiguousError)
  }
}
export class TenantRequiredError extends coded('TENANT_REQUIRED') {
  static {
    TenantRequiredError.register(TenantRequiredError)
  }
}
export class AuthenticationRequiredError extends coded('AUTHENTICATION_REQUIRED') {
  static {
    AuthenticationRequiredError.register(AuthenticationRequiredError)
  }
}
export class TokenInvalidError extends coded('TOKEN_INVALID') {
  static {
    TokenInvalidError.register(TokenInvalidError)
  }
}
export class ApiKeyInvalidError extends coded('API_KEY_INVALID') {
  static {
    ApiKeyInvalidError.register(ApiKeyInvalidError)
  }
}
export class ScopeRequiredError extends coded('SCOPE_REQUIRED') {
  static {
    ScopeRequiredError.register(ScopeRequiredError)
  }
}
export class GlobalAdminRequiredError extends coded('GLOBAL_ADMIN_REQUIRED') {
  static {
    GlobalAdminRequiredError.register(GlobalAdminRequiredError)
  }
}
export class ScopeEscalationError extends coded('SCOPE_ESCALATION') {
  static {
    ScopeEscalationError.register(ScopeEscalationError)
  }
}
export class TenantMismatchError extends coded('TENANT_MISMATCH') {
  static {
    TenantMismatchError.register(TenantMismatchError)
  }
}
export class TenantHeaderUntrustedError extends coded('TENANT_HEADER_UNTRUSTED') {
  static {
    TenantHeaderUntrustedError.register(TenantHeaderUntrustedError)
  }
}
export class TenantSuspendedError extends coded('TENANT_SUSPENDED') {
  static {
    TenantSuspendedError.register(TenantSuspendedError)
  }
}
export class PermissionRevocationDeniedError extends coded('PERMISSION_REVOCATION_DENIED') {
  static {
    PermissionRevocationDeniedError.register(PermissionRevocationDeniedError)
  }
}
export class RouteNotFoundError extends coded('ROUTE_NOT_FOUND') {
  static {
    RouteNotFoundError.register(RouteNotFoundError)
  }
}
export class TenantNotFoundError extends coded('TENANT_NOT_FOUND') {
  static {
    TenantNotFoundError.register(TenantNotFoundError)
  }
}
export class ConfigNotFoundError extends coded('CONFIG_NOT_FOUND') {
  static {
    ConfigNotFoundError.register(ConfigNotFoundError)
  }
}
export class PermissionNotFoundError extends coded('PERMISSION_NOT_FOUND') {
  static {
    PermissionNotFoundError.register(PermissionNotFoundError)
  }
}
export class ApiKeyNotFoundError extends coded('API_KEY_NOT_FOUND') {
  static {
    ApiKeyNotFoundError.register(ApiKeyNotFoundError)
  }
}
export class TenantSlugTakenError extends coded('TENANT_SLUG_TAKEN') {
  static {
    TenantSlugTakenError.register(TenantSlugTakenError)
  }
}
export class TenantInvalidStateError extends coded('TENANT_INVALID_STATE') {
  static {
    TenantInvalidStateError.register(TenantInvalidStateError)
  }
}
export class TenantHasChildrenError extends coded('TENANT_HAS_CHILDREN') {
  static {
    TenantHasChildrenError.register(TenantHasChildrenError)
  }
}
export class TenantCycleDetectedError extends coded('TENANT_CYCLE_DETECTED') {
  static {
    TenantCycleDetectedError.register(TenantCycleDetectedError)
  }
}
export class TenantDepthExceededError extends coded('TENANT_DEPTH_EXCEEDED') {
  static {
    TenantDepthExceededError.register(TenantDepthExceededError)
  }
}
export class ConfigLockedError extends coded('CONFIG_LOCKED') {
  static {
    ConfigLockedError.register(ConfigLockedError)
  }
}
export class PermissionLockedError extends coded('PERMISSION_LOCKED') {
  static {
    PermissionLockedError.register(PermissionLockedError)
  }
}
export class PermissionNotDelegatedError extends coded('PERMISSION_NOT_DELEGATED') {
  static {
    PermissionNotDelegatedError.register(PermissionNotDelegatedError)
  }
}
export class PermissionExistsError extends coded('PERMISSION_EXISTS') {
  static {
    PermissionExistsError.register(PermissionExistsError)
  }
}
export class ProvisioningUnavailableError extends coded('PROVISIONING_UNAVAILABLE') {
  static {
    ProvisioningUnavailableError.register(ProvisioningUnavailableError)
  }
}
export class TenantArchivedError extends coded('TENANT_ARCHIVED') {
  static {
    TenantArchivedError.register(TenantArchivedError)
  }
}
export class BodyTooLargeError extends coded('BODY_TOO_LARGE') {
  static {
    BodyTooLargeError.register(BodyTooLargeError)
  }
}
export class ValidationFailedError extends coded('VALIDATION_FAILED') {
  static {
    ValidationFailedError.register(ValidationFailedError)
  }
}
export class InternalError extends coded('INTERNAL_ERROR') {
  static {
    InternalError.register(InternalError)
  }
}
export class SecretUnreadableError extends coded('SECRET_UNREADABLE') {
  static {
    SecretUnreadableError.register(SecretUnreadableError)
  }
}
export class MasterKeyMissingError extends coded('MASTER_KEY_MISSING') {
  static {
    MasterKeyMissingError.register(MasterKeyMissingError)
  }
}
export class ApiKeySecretMissingError extends coded('API_KEY_SECRET_MISSING') {
  static {
    ApiKeySecretMissingError.register(ApiKeySecretMissingError)
  }
}
export class ConfigurationInvalidError extends coded('CONFIGURATION_INVALID') {
  static {
    ConfigurationInvalidError.register(ConfigurationInvalidError)
  }
}
export class DatabaseOutdatedError extends coded('DATABASE_OUTDATED') {
  static {
    DatabaseOutdatedError.register(DatabaseOutdatedError)
  }
}
export class DatabaseUnavailableError extends coded('DATABASE_UNAVAILABLE') {
  static {
    DatabaseUnavailableError.register(DatabaseUnavailableError)
  }
}
export class DatabaseBusyError extends coded('DATABASE_BUSY') {
  static {
    DatabaseBusyError.register(DatabaseBusyError)
  }
}
export class ServerUnreachableError extends coded('SERVER_UNREACHABLE') {
  static {
    ServerUnreachableError.register(ServerUnreachableError)
  }
}
export class DatabaseRoleRefusedError extends coded('DATABASE_ROLE_REFUSED') {
  static {
    DatabaseRoleRefusedError.register(DatabaseRoleRefusedError)
  }
}
