-- The end of a tenant. Its rows in the control plane go in one transaction; its rows in the data plane, which no batch may
-- reach from then on, go by a job of that transaction. What stays: its ids, its slugs, which are never another's, and the
-- skeleton of its audit chain, which still verifies without the payloads.

-- The places that hold, or may hold, rows of some tenants: where each is, and where it was before. `own` where
-- one of them is a schema or database.
create or replace function stratum.places_of(of_tenants stratum.tenants[]) returns table (tenant_id uuid, places jsonb, own boolean)
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return query
    select p.id, jsonb_agg(jsonb_build_object('strategy', p.strategy, 'name', p.name)), bool_or(p.strategy <> 'SHARED_RLS') from (
      select t.id, t.isolation_strategy as strategy, t.isolation_name as name from unnest(of_tenants) as t
      -- where a change led to, the tenant is or has come from, or what was made there was removed before the change ended
      union select c.tenant_id, c.from_strategy, c.from_name from isolation_changes c where c.source_dropped_at is null) as p
    where p.id in (select t.id from unnest(of_tenants) as t) and (p.strategy <> 'SHARED_RLS' or exists (select from managed_tables))
    group by p.id order by p.id;
end $$;
--> statement-breakpoint
-- Lock the tenants of a purge from the top down, and answer them.
create or replace function stratum.lock_doomed(top uuid, subtree boolean) returns stratum.tenants[]
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  top_path ltree := (select t.path from tenants t where t.id = top);
  doomed tenants[];
  busy record;
begin
  -- The caller has the structure to itself: nothing comes or goes below.
  perform from tenants t where t.path >= top_path and t.path < stratum.subtree_end(top_path) order by t.path for update;
  doomed := array(select t from tenants t where t.path >= top_path and t.path < stratum.subtree_end(top_path) order by t.path);
  if cardinality(doomed) > 1 and not subtree then perform stratum.fail('TENANT_HAS_CHILDREN'); end if;
  select c.job_id into busy from isolation_changes c
  where c.finished_at is null and c.tenant_id in (select d.id from unnest(doomed) as d) limit 1;
  if found then perform stratum.fail('ISOLATION_CHANGE_RUNNING', jsonb_build_object('job_id', busy.job_id)); end if;
  return doomed;
end $$;
--> statement-breakpoint
-- What must be forgotten of them by whoever keeps answers; above a thousand lines it is everything.
create or replace function stratum.purge_feed(top_path stratum.ltree, doomed uuid[]) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  lines jsonb;
begin
  select jsonb_agg(jsonb_build_array(f.kind, f.ref)) into lines from (
    select 'subtree' as kind, top_path::text as ref
    union all select 'host', t.slug from tenants t where t.id = any (doomed)
    union all select 'host', d.domain from custom_domains d where d.tenant_id = any (doomed) and d.verified_at is not null
    union all select 'principal', k.id::text from api_keys k where k.tenant_id = any (doomed)
    union all select 'issuer', i.issuer from issuers i where i.tenant_id = any (doomed)
    union select 'issuer', e.issuer from tenant_external_ids e where e.tenant_id = any (doomed) or e.reach_tenant_id = any (doomed)
    limit 1001) as f;
  return case when jsonb_array_length(lines) > 1000 then '[["installation", ""]]' else lines end;
end $$;
--> statement-breakpoint
-- Delete the rows of some tenants from one table, and answer how many there were.
create or replace function stratum.erase_rows(of_table regclass, of_column text, doomed uuid[]) returns bigint
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  erased bigint;
begin
  execute format('delete from %s where %I = any ($1)', of_table, of_column) using doomed;
  get diagnostics erased = row_count;
  return erased;
end $$;
--> statement-breakpoint
-- Erase what the control plane holds of some tenants, and answer how many rows of each table. Without its data keys a
-- secret is nothing, in a backup too. A policy that is PERMANENT ends here and nowhere else.
create or replace function stratum.erase_tenants(doomed uuid[]) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  erased jsonb := '{}';
  of_table text;
  counted bigint;
  named uuid;
begin
  -- those that point at others before the others
  foreach of_table in array array['custom_domains', 'tenant_external_ids', 'issuers', 'api_keys', 'permission_policies', 'config_entries',
    'config_history', 'data_keys', 'tenant_places', 'isolation_changes', 'outbox'] loop
    erased := erased || jsonb_build_object(of_table, stratum.erase_rows(of_table::regclass, 'tenant_id', doomed));
  end loop;
  -- A mapping counts within the reach of who made it, and nothing is within this any more.
  perform stratum.erase_rows('tenant_external_ids', 'reach_tenant_id', doomed);
  update audit_entries e set payload = null, salt = null where e.tenant_id = any (doomed) and e.payload is not null;
  get diagnostics counted = row_count;
  erased := erased || jsonb_build_object('audit_entries', counted);
  -- Answers that are kept to be given again know the tenants they name. One lookup for each tenant, as Postgres compares every
  -- answer with all of many.
  foreach named in array doomed loop
    delete from idempotency_keys k where k.tenant_ids @> array[named];
  end loop;
  -- One that was suspended with them has moved elsewhere since, and stays as it is.
  update tenants t set suspended_with = null where t.suspended_with = any (doomed);
  update tenants t set archived_with = null where t.archived_with = any (doomed);
  return erased || jsonb_build_object('tenants', stratum.erase_rows('tenants', 'id', doomed));
end $$;
--> statement-breakpoint
-- Let no batch of these tenants begin any more, and leave their rows to jobs: one for each that has a schema or database,
-- and one for 500 of the others. A tenant that has no rows anywhere needs none, and no guard either.
create or replace function stratum.close_places(top uuid, doomed stratum.tenants[]) returns uuid[]
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  job_ids uuid[];
begin
  with held as (select p.tenant_id, p.places, p.own, row_number() over (partition by p.own order by p.tenant_id) as place from stratum.places_of(doomed) as p),
  work as (
    select case when h.own then h.tenant_id else top end as about, jsonb_agg(jsonb_build_object('tenant_id', h.tenant_id, 'places', h.places) order by h.place) as tenants
    from held h group by h.own, case when h.own then h.tenant_id else top end, case when h.own then h.place else h.place / 500 end)
  select array_agg(stratum.enqueue('purge_tenant_data', w.about, jsonb_build_object('tenants', w.tenants))) into job_ids from work w;
  insert into stratum_guard.route as r (tenant_id, status, fenced) select p.tenant_id, 'purged', true from stratum.places_of(doomed) as p
  on conflict (tenant_id) do update set status = 'purged', fenced = true;
  delete from stratum_guard.route r using unnest(doomed) as d where r.tenant_id = d.id and r.status <> 'purged';
  -- who goes straight to a tenant's own database is kept out there as well, before it is dropped
  perform stratum.enqueue('sync_route', d.id, '{}') from unnest(doomed) as d where d.isolation_strategy = 'DB_PER_TENANT';
  return coalesce(job_ids, '{}');
end $$;
--> statement-breakpoint
create or replace function stratum.purge_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('purge_tenant', actor, input, 'exclusive');
  doomed tenants[] := stratum.lock_doomed((input ->> 'id')::uuid, (input ->> 'subtree')::boolean);
  ids uuid[] := array(select d.id from unnest(doomed) as d);
  feed jsonb := stratum.purge_feed(doomed[1].path, ids);
  job_ids uuid[];
  erased jsonb;
begin
  perform from audit_heads h where h.tenant_id = any (ids || stratum.system_chain()) order by h.tenant_id for no key update;
  update jobs j set status = 'cancelled', finished_at = now() where j.tenant_id = any (ids) and j.status = 'queued';
  job_ids := stratum.close_places(doomed[1].id, doomed);
  erased := stratum.erase_tenants(ids);
  perform stratum.record(who, stratum.system_chain(), 'tenant.purged', stratum.resource('tenant', doomed[1].id), null,
    jsonb_build_object('purged', stratum.id_list(ids), 'erased', erased), feed);
  return jsonb_build_object('id', doomed[1].id, 'purged', to_jsonb(ids), 'erased', erased, 'job_ids', to_jsonb(job_ids));
end $$;
