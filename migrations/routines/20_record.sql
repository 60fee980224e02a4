-- A change, its audit entry, its event and its line in the change feed commit together: stratum.record
-- writes all of them. Audit entries of one chain are linked by hash:
--
--   payload_hash = sha256(salt || payload)            both as UTF-8 text, hashes as lower-case hex
--   hash         = sha256(previous_hash ':' seq ':' payload_hash)
--
-- The first previous_hash is 64 zeros. Erasing payload and salt leaves the chain verifiable.

-- The chain of what belongs to no tenant.
create or replace function stratum.system_chain() returns uuid
language sql immutable parallel safe as $$ select '00000000-0000-0000-0000-000000000000'::uuid $$;
--> statement-breakpoint
insert into stratum.installation default values on conflict do nothing;
--> statement-breakpoint
insert into stratum.audit_heads (tenant_id) values ('00000000-0000-0000-0000-000000000000') on conflict do nothing;
--> statement-breakpoint
-- Lock the end of a chain. Always before the row that changes: the other way round deadlocks.
create or replace function stratum.lock_chain(chain uuid) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  perform from audit_heads h where h.tenant_id = chain for no key update;
end $$;
--> statement-breakpoint
create or replace function stratum.sha256_hex(input text) returns text
language sql immutable parallel safe as $$ select encode(sha256(convert_to(input, 'UTF8')), 'hex') $$;
--> statement-breakpoint
-- Append to a chain; the caller holds its lock.
create or replace function stratum.append_audit(who jsonb, chain uuid, action text, resource jsonb, before jsonb, after jsonb) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  salt text := replace(gen_random_uuid()::text, '-', '');
  payload text := jsonb_build_object(
    'action', action, 'resource', resource, 'before', before, 'after', after, 'at', stratum.iso(clock_timestamp()),
    'actor', stratum.principal_json(who) || jsonb_build_object('acting_as', who -> 'acting_as', 'issuer', who -> 'issuer', 'issuer_id', who -> 'issuer_id'),
    'request_id', who -> 'request_id', 'source_ip', who -> 'source_ip')::text;
  payload_hash text := stratum.sha256_hex(salt || payload);
  head record;
  next_hash text;
begin
  select h.seq + 1 as seq, h.hash into strict head from audit_heads h where h.tenant_id = chain;
  next_hash := stratum.sha256_hex(head.hash || ':' || head.seq || ':' || payload_hash);
  insert into audit_entries (tenant_id, seq, payload, salt, payload_hash, previous_hash, hash)
  values (chain, head.seq, payload, salt, payload_hash, head.hash, next_hash);
  update audit_heads h set seq = head.seq, hash = next_hash where h.tenant_id = chain;
end $$;
--> statement-breakpoint
-- Write down a change. `feed` is an array of [kind, ref], as src/db/tables.ts describes changes.
create or replace function stratum.record(who jsonb, chain uuid, action text, resource jsonb, before jsonb, after jsonb, feed jsonb) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  perform stratum.append_audit(who, chain, action, resource, before, after);
  insert into outbox (id, tenant_id, type, payload)
  values (stratum.uuid_v7(), nullif(chain, stratum.system_chain()), action,
    jsonb_build_object('resource', resource, 'before', before, 'after', after, 'request_id', who -> 'request_id'));
  -- Once for each transaction: hundreds of keys set at once are one change of one subtree, and readers who are told of more
  -- than a thousand drop everything.
  insert into changes (kind, ref)
  select f.value ->> 0, f.value ->> 1 from jsonb_array_elements(feed) as f
  where not exists (select from changes c where c.xid = pg_current_xact_id() and c.kind = f.value ->> 0 and c.ref = f.value ->> 1);
end $$;
