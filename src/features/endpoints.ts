import type { Endpoint } from '../core/endpoint.ts'
import * as config from './config/contract.ts'
import * as context from './context/contract.ts'
import * as domains from './domains/contract.ts'
import * as externalIds from './external-ids/contract.ts'
import * as isolation from './isolation/contract.ts'
import * as issuers from './issuers/contract.ts'
import * as jobs from './jobs/contract.ts'
import * as keys from './keys/contract.ts'
import * as permissions from './permissions/contract.ts'
import * as tenants from './tenants/contract.ts'

type EndpointsOf<M> = { [K in keyof M as M[K] extends Endpoint ? K : never]: M[K] }

const contracts = { ...tenants, ...config, ...permissions, ...keys, ...jobs, ...isolation, ...domains, ...issuers, ...externalIds, ...context }

/** True for what `endpoint()` made; a contract module exports its schemas beside its endpoints. */
const isEndpoint = (exported: object): exported is Endpoint => 'path' in exported && 'reach' in exported

/** Every operation of the API by id. Routes, SDK, OpenAPI, the rules in SQL and the tests all walk this. */
export const endpoints = Object.fromEntries(Object.entries(contracts).filter(([, exported]) => isEndpoint(exported))) as EndpointsOf<typeof contracts>

/** The same as a list. */
export const endpointList: readonly Endpoint[] = Object.values(endpoints)
