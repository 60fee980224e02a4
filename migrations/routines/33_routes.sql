-- Where each tenant's rows are and whether they may be used, kept for the guard (01_guard.sql) in the transaction that
-- changes the tenant. Its row here, in the control database, is where whoever does not know is sent.

-- A tenant's rows are in the shared tables, in a schema of its own, or in a database of its own.
create or replace function stratum.put_routes(tenant_ids uuid[]) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  insert into stratum_guard.route as r (tenant_id, status, fenced, database_name, schema_name)
  select t.id, t.status, t.provisioning_status <> 'ready',
    case t.isolation_strategy when 'DB_PER_TENANT' then t.isolation_name end,
    case t.isolation_strategy when 'SCHEMA_PER_TENANT' then t.isolation_name end
  from tenants t where t.id = any (tenant_ids)
  on conflict (tenant_id) do update set status = excluded.status,
    -- a cutover fences by itself; only a new place, or one just made, opens it here
    fenced = case when (r.database_name, r.schema_name) is distinct from (excluded.database_name, excluded.schema_name) or excluded.fenced
      or not exists (select from stratum.isolation_changes m where m.tenant_id = excluded.tenant_id and m.finished_at is null)
      then excluded.fenced else r.fenced end,
    routing_version = r.routing_version + case when (r.database_name, r.schema_name) is distinct from (excluded.database_name, excluded.schema_name) then 1 else 0 end,
    database_name = excluded.database_name, schema_name = excluded.schema_name
  where (r.status, r.fenced, r.database_name, r.schema_name)
    is distinct from (excluded.status, excluded.fenced, excluded.database_name, excluded.schema_name);
end $$;
--> statement-breakpoint
create or replace function stratum.route_new_tenants() returns trigger
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  perform stratum.put_routes(array(select c.id from changed c));
  return null;
end $$;
--> statement-breakpoint
-- Only for those whose place or status changed: a move rewrites the paths of thousands, whose routes stay as they are.
create or replace function stratum.route_changed_tenants() returns trigger
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  perform stratum.put_routes(array(
    select c.id from changed c join before b on b.id = c.id
    where (c.status, c.provisioning_status, c.isolation_strategy, c.isolation_name)
      is distinct from (b.status, b.provisioning_status, b.isolation_strategy, b.isolation_name)));
  return null;
end $$;
--> statement-breakpoint
create or replace trigger sync_routes_on_insert after insert on stratum.tenants
referencing new table as changed for each statement execute function stratum.route_new_tenants();
--> statement-breakpoint
create or replace trigger sync_routes_on_update after update on stratum.tenants
referencing old table as before new table as changed for each statement execute function stratum.route_changed_tenants();
--> statement-breakpoint
-- Tenants that were there before the guard was.
insert into stratum_guard.route (tenant_id, status, fenced)
select t.id, t.status, t.provisioning_status <> 'ready' from stratum.tenants t where t.isolation_strategy = 'SHARED_RLS'
on conflict (tenant_id) do nothing;
