-- A tenant that is not isolated by row security alone needs a place: a schema or a database, which the provisioner
-- makes by a job enqueued with the tenant. Until it is made, nobody is sent there.

-- The name of a tenant's place: the plain one, unless that is too long or a tenant, schema or database has it; then
-- it ends in a hash of the tenant's id. Two tenants never want one plain name at once: it holds the slug, and a slug
-- is one tenant's for ever. The database has the last word (tenants_isolation_name_key).
create or replace function stratum.isolation_name_for(strategy text, slug text, tenant_id uuid) returns text
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  plain text := case strategy when 'SCHEMA_PER_TENANT' then 'tenant_' when 'DB_PER_TENANT' then 'stratum_' end || slug;
  hashed text := left(plain, 50) || '_' || left(stratum.sha256_hex(tenant_id::text), 12);
  -- who knows the id can choose a slug whose plain name is that one
  unforeseen text := left(plain, 50) || '_' || left(stratum.sha256_hex(tenant_id::text || gen_random_uuid()), 12);
begin
  return (
    select c.name from unnest(array[plain, hashed, unforeseen]) with ordinality as c (name, place)
    where octet_length(c.name) <= 63
      and not exists (select from tenants t where t.isolation_name = c.name)
      and not exists (select from pg_namespace n where n.nspname = c.name)
      and not exists (select from pg_database d where d.datname = c.name)
      and not exists (select from tenant_databases d where d.database_name = c.name)
    order by c.place limit 1);
end $$;
--> statement-breakpoint
-- Refuse a strategy that this installation cannot provide: nobody to make the place, or no room for one more database.
create or replace function stratum.require_provisioning(strategy text) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  present bigint;
  allowed integer;
begin
  if strategy = 'SHARED_RLS' then return; end if;
  if not stratum.has_queue() then
    perform stratum.fail('PROVISIONING_UNAVAILABLE', jsonb_build_object('isolation_strategy', strategy));
  end if;
  if strategy = 'DB_PER_TENANT' then
    select i.database_limit into allowed from installation i;
    select count(*) into present from pg_database d where not d.datistemplate;
    if present >= allowed then perform stratum.fail('DATABASE_LIMIT_REACHED', jsonb_build_object('count', present, 'limit', allowed)); end if;
  end if;
end $$;
--> statement-breakpoint
-- Say how the making of a tenant's place stands, with audit entry, event and feed. `error` is { code, message };
-- `who` is the provisioner where nobody asked. Nothing to do for a tenant that is gone, or that is
-- ready: whatever becomes of a job then, its place stays.
create or replace function stratum.set_provisioning_status(tenant_id uuid, status text, error jsonb default null, who jsonb default null) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  old tenants;
  new tenants;
begin
  select * into old from tenants t where t.id = set_provisioning_status.tenant_id for no key update;
  if old.id is null or old.provisioning_status in ('ready', set_provisioning_status.status) then return; end if;
  perform stratum.lock_chain(old.id);
  update tenants t set provisioning_status = set_provisioning_status.status, updated_at = now() where t.id = old.id returning * into new;
  perform stratum.record(coalesce(who, '{"type": "system", "id": "provisioner", "scopes": ["admin"]}'), new.id,
    case new.provisioning_status when 'ready' then 'tenant.provisioned' when 'failed' then 'tenant.provisioning_failed' else 'tenant.provisioning' end,
    stratum.resource('tenant', new.id), jsonb_build_object('provisioning_status', old.provisioning_status),
    jsonb_strip_nulls(jsonb_build_object('provisioning_status', new.provisioning_status, 'isolation_strategy', new.isolation_strategy,
      'isolation_name', new.isolation_name, 'error', error)),
    jsonb_build_array(jsonb_build_array('subtree', new.path)));
end $$;
--> statement-breakpoint
-- A tenant's own database has a route of its own, which a change of status has to reach: a job sees to it. So does one
-- for a tenant that comes to have a database, as its status may have changed while its rows were on their way.
create or replace function stratum.sync_database_routes() returns trigger
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  perform stratum.enqueue('sync_route', c.id, '{}') from changed c
  where c.isolation_strategy = 'DB_PER_TENANT' and exists (select from previous p where p.id = c.id and (p.status, p.isolation_strategy) <> (c.status, c.isolation_strategy));
  return null;
end $$;
--> statement-breakpoint
create or replace trigger sync_database_routes after update on stratum.tenants
referencing old table as previous new table as changed for each statement execute function stratum.sync_database_routes();
