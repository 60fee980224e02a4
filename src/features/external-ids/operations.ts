import { operation } from '../operation.ts'
import * as contract from './contract.ts'

// SQL does not know the issuers of the environment, whose tokens reach what anybody's do.

export const setExternalId = operation(contract.setExternalId, ({ tokens }, input, call) =>
  call({ ...input, of_environment: tokens.isOfEnvironment(input.issuer) }),
)

export const deleteExternalId = operation(contract.deleteExternalId, ({ tokens }, input, call) =>
  call({ ...input, of_environment: tokens.isOfEnvironment(input.issuer) }),
)
