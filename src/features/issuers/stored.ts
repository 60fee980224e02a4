import type { AskForIssuer } from '../../auth/stored-issuers.ts'
import type { Actor } from '../../core/actor.ts'
import type { Database } from '../../db/database.ts'

/** A token is verified before anybody is known. */
const NOBODY: Actor = { credential: { type: 'nobody' }, named: [], exposed: true, request_id: null, source_ip: null }

/** Asks the database for stored issuers. */
export const askDatabaseForIssuer =
  (db: Database): AskForIssuer =>
  (issuer, audiences) =>
    db.call('read_issuer', NOBODY, { issuer, audiences })
