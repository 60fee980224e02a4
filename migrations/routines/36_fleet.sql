-- The application's migrations over every place that holds rows of tenants. The runner (src/provisioning/fleet) calls
-- these as the owner, around each file in each place, in the transaction of the file where that runs in this database.

-- The lock that makePlace shares while it copies the shared tables: so a place is made from before or after a file.
create or replace function stratum.lock_copies() returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('stratum.managed_tables', 0));
end $$;
--> statement-breakpoint
-- Refuse while rows of the shared tables, or of the tenant, are being copied elsewhere: the copy would not have what the
-- file makes. The tenant's row stays locked, so that no such change begins meanwhile, and no purge.
create or replace function stratum.require_unchanging(of_tenant uuid, place text) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  t tenants;
  busy record;
begin
  if of_tenant = stratum.system_chain() then
    perform stratum.lock_copies();
    select c.job_id into busy from isolation_changes c where c.finished_at is null and 'SHARED_RLS' in (c.from_strategy, c.to_strategy) limit 1;
  else
    select * into t from tenants where id = of_tenant for share;
    if t.id is null or t.isolation_name is distinct from place then perform stratum.fail('TENANT_NOT_FOUND'); end if;
    select c.job_id into busy from isolation_changes c where c.finished_at is null and c.tenant_id = of_tenant limit 1;
  end if;
  if found then perform stratum.fail('ISOLATION_CHANGE_RUNNING', jsonb_build_object('job_id', busy.job_id)); end if;
end $$;
--> statement-breakpoint
-- Before a file runs in a place: `place` is the schema's or database's name, null for the shared tables. Files are known
-- from the first place on that has had them, and must not change after.
create or replace function stratum.begin_place_migration(of_tenant uuid, place text, file text, file_hash text) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  known text;
begin
  perform stratum.require_unchanging(of_tenant, place);
  select m.hash into known from fleet_migrations m where m.name = file;
  if known <> file_hash then
    perform stratum.fail('MIGRATION_INVALID', jsonb_build_object('migration', file, 'reason', 'it was changed after it was applied'));
  elsif known is null then
    insert into fleet_migrations (name, hash) values (file, file_hash);
  end if;
end $$;
--> statement-breakpoint
-- After it: in the transaction of the file, or after that where the place is another database.
create or replace function stratum.end_place_migration(of_tenant uuid, file text) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  insert into fleet_places as p (tenant_id, migration) values (of_tenant, file)
  on conflict (tenant_id) do update set migration = excluded.migration, status = 'current', error = null, updated_at = now();
end $$;
--> statement-breakpoint
-- `error` is { code, message }, and `sqlstate` where the database refused.
create or replace function stratum.fail_place_migration(of_tenant uuid, error jsonb) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  insert into fleet_places as p (tenant_id, status, error) values (of_tenant, 'failed', fail_place_migration.error)
  on conflict (tenant_id) do update set status = 'failed', error = excluded.error, updated_at = now();
end $$;
