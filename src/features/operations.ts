import type { Endpoint } from '../core/endpoint.ts'
import { batchSetConfig, putConfigDefinitions, resolveConfig, setConfig } from './config/operations.ts'
import { getContext, getHealth, resolve } from './context/operations.ts'
import { createDomain, deleteDomain, listDomains, verifyDomain } from './domains/operations.ts'
import { endpointList } from './endpoints.ts'
import { deleteExternalId, setExternalId } from './external-ids/operations.ts'
import { createIssuer, deleteIssuer } from './issuers/operations.ts'
import { createApiKey } from './keys/operations.ts'
import { type Operation, operation } from './operation.ts'
import { batchCreateTenants } from './tenants/operations.ts'

/** Those that do something in the process besides calling SQL: check, encrypt, decrypt, hash, verify. */
const special: readonly Operation[] = [
  batchCreateTenants,
  setConfig,
  batchSetConfig,
  putConfigDefinitions,
  resolveConfig,
  createApiKey,
  listDomains,
  createDomain,
  verifyDomain,
  deleteDomain,
  createIssuer,
  deleteIssuer,
  setExternalId,
  deleteExternalId,
  getContext,
  resolve,
  getHealth,
]

const byId = new Map<string, Operation>([...endpointList.map((endpoint) => operation(endpoint)), ...special].map((each) => [each.endpoint.id, each]))

/** What runs an endpoint. */
export const operationFor = <E extends Endpoint>(endpoint: E): Operation<E> => byId.get(endpoint.id) as Operation<E>

/** Every operation. */
export const operationList: readonly Operation[] = [...byId.values()]
