-- Changing how a tenant is isolated. The operation writes down what is wanted and enqueues the job; the provisioner
-- copies the rows while the tenant works, and switches over with the functions at the end of this file.

create or replace function stratum.isolation_change_json(c stratum.isolation_changes) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_build_object('id', c.id, 'tenant_id', c.tenant_id, 'job_id', c.job_id,
    'from_strategy', c.from_strategy, 'from_name', c.from_name, 'to_strategy', c.to_strategy, 'to_name', c.to_name,
    'phase', c.phase, 'progress',
    -- not the last key, which may be the tenant's own data
    (select jsonb_object_agg(e.key, jsonb_build_object('copied', e.value -> 'copied', 'total', e.value -> 'total')) from jsonb_each(c.progress -> 'tables') as e),
     'cancel_requested', c.cancel_requested, 'fenced_ms', c.fenced_ms, 'error', c.error,
    'created_at', stratum.iso(c.created_at), 'finished_at', stratum.iso(c.finished_at),
    'source_kept_until', stratum.iso(c.source_kept_until), 'source_dropped_at', stratum.iso(c.source_dropped_at))
$$;
--> statement-breakpoint
-- The name of the place a tenant changes to: that of one it left and that is kept still, which is dropped before
-- anything is made, else as for a new tenant.
create or replace function stratum.changed_isolation_name(t stratum.tenants, strategy text) returns text
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  return coalesce(
    (select c.from_name from isolation_changes c
     where c.tenant_id = t.id and c.from_strategy = strategy and c.phase = 'done' and c.source_dropped_at is null order by c.id desc limit 1),
    stratum.isolation_name_for(strategy, t.slug, t.id));
end $$;
--> statement-breakpoint
-- Refuse to move rows between tables that have had other migrations of the application: what was done to the rows of one
-- place would be done again, or never. A schema's ledger is here, a database's last entry is in the fleet's summary.
create or replace function stratum.require_same_migrations(t stratum.tenants) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  due text[] := array(select m.name collate "C" from stratum_guard.applied_migrations m where m.schema_name = '' order by 1);
  had text[] := array(select m.name collate "C" from stratum_guard.applied_migrations m where m.schema_name = t.isolation_name order by 1);
  last_due text := coalesce(due[cardinality(due)], '');
  last_had text := coalesce(had[cardinality(had)], '');
begin
  if t.isolation_strategy = 'SHARED_RLS' then return; end if;
  if t.isolation_strategy = 'DB_PER_TENANT' then
    last_had := coalesce((select p.migration from fleet_places p where p.tenant_id = t.id), '');
  end if;
  if last_had <> last_due or t.isolation_strategy = 'SCHEMA_PER_TENANT' and had <> due then
    perform stratum.fail('TENANT_INVALID_STATE', jsonb_build_object('tenant_id', t.id,
      'status', format('at the migration %s, and the shared tables at %s', coalesce(nullif(last_had, ''), 'none'), coalesce(nullif(last_due, ''), 'none')),
      'required', 'the same migrations in both: run stratum tenants migrate first'));
  end if;
end $$;
--> statement-breakpoint
create or replace function stratum.migrate_isolation(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('migrate_isolation', actor, input, 'shared');
  wanted text := input ->> 'isolation_strategy';
  new_id uuid := stratum.uuid_v7();
  t tenants;
  running uuid;
  created isolation_changes;
begin
  select * into strict t from tenants where id = (input ->> 'id')::uuid for no key update;
  perform stratum.require_status(t, '{active}', 'an active tenant');
  if t.provisioning_status <> 'ready' then
    perform stratum.fail('TENANT_INVALID_STATE', jsonb_build_object('tenant_id', t.id, 'status', t.provisioning_status, 'required', 'a place that is ready'));
  end if;
  select c.job_id into running from isolation_changes c where c.tenant_id = t.id and c.finished_at is null;
  if found then perform stratum.fail('ISOLATION_CHANGE_RUNNING', jsonb_build_object('job_id', running)); end if;
  if t.isolation_strategy = wanted then perform stratum.fail('ISOLATION_UNCHANGED', jsonb_build_object('isolation_strategy', wanted)); end if;
  perform stratum.require_same_migrations(t);
  perform stratum.require_provisioning(wanted);
  perform stratum.lock_chain(t.id);
  insert into isolation_changes (id, tenant_id, job_id, from_strategy, from_name, to_strategy, to_name)
  values (new_id, t.id, stratum.enqueue('change_isolation', t.id, jsonb_build_object('change_id', new_id, 'isolation_strategy', wanted)),
    t.isolation_strategy, t.isolation_name, wanted, stratum.changed_isolation_name(t, wanted))
  returning * into created;
  perform stratum.record(who, t.id, 'tenant.isolation_change_requested', stratum.resource('tenant', t.id),
    stratum.isolation_json(t.isolation_strategy, t.isolation_name),
    stratum.isolation_json(created.to_strategy, created.to_name) || jsonb_build_object('job_id', created.job_id), '[]');
  return stratum.isolation_change_json(created);
end $$;
--> statement-breakpoint
create or replace function stratum.isolation_json(strategy text, name text) returns jsonb
language sql immutable parallel safe as $$ select jsonb_build_object('isolation_strategy', strategy, 'isolation_name', name) $$;
--> statement-breakpoint
-- The changes of one tenant, newest first.
create or replace function stratum.list_isolation_changes(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('list_isolation_changes', actor, input);
  wanted integer := (input ->> 'limit')::integer;
  before_id uuid := coalesce((input -> 'after' ->> 0)::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
  rows isolation_changes[] := array(
    select c from isolation_changes c where c.tenant_id = (input ->> 'id')::uuid and c.id < before_id order by c.id desc limit wanted + 1);
begin
  return jsonb_build_object(
    'data', (select coalesce(jsonb_agg(stratum.isolation_change_json(r) order by r.id desc), '[]') from unnest(rows[:wanted]) as r),
    'next', case when cardinality(rows) > wanted then jsonb_build_array(rows[wanted].id) end);
end $$;
--> statement-breakpoint
-- Who acts where nobody asked.
create or replace function stratum.provisioner() returns jsonb
language sql immutable parallel safe as $$ select '{"type": "system", "id": "provisioner", "scopes": ["admin"]}'::jsonb $$;
--> statement-breakpoint
-- A job took a change up, again perhaps: answers it. One that had failed, and whose place was removed, begins anew.
-- Null where there is nothing to do any more, as its tenant was purged or has moved on since.
create or replace function stratum.take_up_isolation_change(change_id uuid) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  c isolation_changes;
  t tenants;
  other uuid;
begin
  select * into c from isolation_changes where id = change_id;
  if not found then return null; end if;
  select * into strict t from tenants where id = c.tenant_id for no key update;
  select * into strict c from isolation_changes where id = change_id for update;
  if c.phase = 'failed' then
    select o.job_id into other from isolation_changes o where o.tenant_id = t.id and o.finished_at is null;
    if found then perform stratum.fail('ISOLATION_CHANGE_RUNNING', jsonb_build_object('job_id', other)); end if;
    update isolation_changes set phase = 'preparing', progress = '{}', error = null, finished_at = null where id = change_id returning * into c;
  end if;
  -- its target may be the tenant's place by now, and is not to be cleared
  if c.finished_at is null and (t.isolation_strategy, t.isolation_name) is distinct from (c.from_strategy, c.from_name) then
    update isolation_changes set phase = 'cancelled', finished_at = now() where id = change_id;
    return null;
  end if;
  return to_jsonb(c) || jsonb_build_object('routing_version', (select r.routing_version from stratum_guard.route r where r.tenant_id = t.id));
end $$;
--> statement-breakpoint
-- First half of the cutover: lock the tenant, and answer the status and the version that its new place opens with.
create or replace function stratum.lock_isolation_change(change_id uuid) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  c isolation_changes;
  t tenants;
begin
  perform stratum.lock_structure('shared');
  select * into strict t from tenants where id = (select m.tenant_id from isolation_changes m where m.id = change_id) for no key update;
  perform stratum.lock_chain(t.id);
  select * into strict c from isolation_changes where id = change_id for update;
  return jsonb_build_object('status', t.status, 'cancelled', c.cancel_requested,
    'routing_version', (select r.routing_version + 1 from stratum_guard.route r where r.tenant_id = t.id));
end $$;
--> statement-breakpoint
-- Second half, in the same transaction: from here on whoever asks is sent to the new place. What is at the old one is
-- kept for so long, and dropped by a job.
create or replace function stratum.switch_isolation(change_id uuid, keep_for interval) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  c isolation_changes;
  t tenants;
begin
  update isolation_changes m set phase = 'done', finished_at = clock_timestamp(), source_kept_until = clock_timestamp() + keep_for
  where m.id = change_id and m.finished_at is null returning * into strict c;
  update tenants set isolation_strategy = c.to_strategy, isolation_name = c.to_name, updated_at = now() where id = c.tenant_id returning * into strict t;
  perform stratum.enqueue('drop_place', c.tenant_id, jsonb_build_object('change_id', c.id), c.source_kept_until);
  perform stratum.record(stratum.provisioner(), t.id, 'tenant.isolation_changed', stratum.resource('tenant', t.id),
    stratum.isolation_json(c.from_strategy, c.from_name), stratum.isolation_json(c.to_strategy, c.to_name) || jsonb_build_object('job_id', c.job_id),
    jsonb_build_array(jsonb_build_array('subtree', t.path), jsonb_build_array('host', t.slug)));
end $$;
--> statement-breakpoint
-- A change that was called off or has failed, after all it made was removed.
create or replace function stratum.abandon_isolation_change(change_id uuid, ended_as text, reason jsonb) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  c isolation_changes;
  t tenants;
begin
  select * into strict t from tenants where id = (select m.tenant_id from isolation_changes m where m.id = change_id) for no key update;
  perform stratum.lock_chain(t.id);
  update isolation_changes m set phase = ended_as, error = reason, finished_at = clock_timestamp()
  where m.id = change_id and m.finished_at is null returning * into c;
  if not found then return; end if;
  perform stratum.record(stratum.provisioner(), t.id, 'tenant.isolation_change_' || ended_as, stratum.resource('tenant', t.id),
    stratum.isolation_json(c.from_strategy, c.from_name), jsonb_build_object('job_id', c.job_id, 'error', reason), '[]');
end $$;
