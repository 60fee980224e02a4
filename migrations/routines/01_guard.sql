-- The guard of the rows. This file is applied to every database that holds rows of tenants: the control
-- database and each tenant's own. A batch of a tenant begins with
--
--   select stratum_guard.enter(tenant_id)
--
-- which waits while the tenant is being cut over, refuses where it is not open here, ends what an earlier batch left
-- of its rows on the connection, and gives the transaction its context: app.current_tenant_id for the policies, the
-- tenant's schema first in the search path, and that tenant's role where it has one. The context ends with the
-- transaction; what the batch itself sets for the session or leaves there stays until the next one enters, or longer
-- (docs/isolation.md).
create schema if not exists stratum_guard;
--> statement-breakpoint
create table if not exists stratum_guard.route (
  tenant_id uuid primary key,
  -- Raised whenever the place changes. Who remembers an older one is sent to ask again.
  routing_version bigint not null default 1,
  status text not null default 'active',
  -- No batch may begin: not made yet, being cut over, or moved away.
  fenced boolean not null default false,
  -- Where the rows are: null is this database, and null the application's shared tables.
  database_name text,
  schema_name text,
  open boolean not null generated always as (status = 'active' and not fenced) stored
);
--> statement-breakpoint
-- Keys of rows that changed while their tenant is copied elsewhere. Who copies takes them out and reads the rows
-- again, so the order in which writers commit does not matter.
create table if not exists stratum_guard.captured (
  id bigint generated always as identity primary key,
  tenant_id uuid not null,
  table_name text not null,
  key jsonb not null
);
--> statement-breakpoint
create index if not exists captured_tenant_id_idx on stratum_guard.captured (tenant_id, id);
--> statement-breakpoint
-- The application's migrations that a place has had; written in the transaction of the migration itself.
create table if not exists stratum_guard.applied_migrations (
  -- '' for the shared tables, or a tenant database's own
  schema_name text not null,
  name text not null,
  hash text not null,
  applied_at timestamptz not null default now(),
  primary key (schema_name, name)
);
--> statement-breakpoint
-- The advisory lock of a tenant: batches share it, a cutover has it alone.
create or replace function stratum_guard.lock_key(tenant_id uuid) returns bigint
language sql immutable parallel safe as $$ select pg_catalog.hashtextextended('stratum.tenant.' || tenant_id::text, 0) $$;
--> statement-breakpoint
-- What the role of a tenant with a schema of its own is called, where the provisioner made it one. By the id, so that no
-- two are alike on a server of many databases, and none needs cutting to 63 bytes.
create or replace function stratum_guard.tenant_role(tenant_id uuid) returns name
language sql immutable parallel safe as $$
  select ('stratum_tenant_' operator(pg_catalog.||) pg_catalog.replace(tenant_id::pg_catalog.text, '-', ''))::pg_catalog.name
$$;
--> statement-breakpoint
create or replace function stratum_guard.fail(code text, details jsonb default '{}') returns void
language plpgsql volatile set search_path = stratum_guard, pg_temp as $$
begin
  raise exception using errcode = 'STRAT', message = code, detail = details::text;
end $$;
--> statement-breakpoint
-- What every policy compares with. STABLE, so that a policy that asks it in a sub-select uses the index. An empty
-- setting, as a recycled connection has it, is refused like a missing one, which would silently yield no rows. A plan
-- that has no row to judge may not ask at all, and then yields none without an error.
-- Called by every query, so it names its schemas rather than pay for a SET clause.
create or replace function stratum_guard.current_tenant_id() returns uuid
language plpgsql stable parallel safe as $$
declare
  given pg_catalog.text := pg_catalog.current_setting('app.current_tenant_id', true);
begin
  if pg_catalog.length(given) operator(pg_catalog.>) 0 then return given::pg_catalog.uuid; end if;
  perform stratum_guard.fail('TENANT_CONTEXT_REQUIRED');
end $$;
--> statement-breakpoint
-- Lock a tenant for a batch and answer where its rows are. The lock comes first and the row is read in a statement
-- of its own after it: READ COMMITTED then sees what a cutover that was waited for has left. A transaction of a
-- higher level keeps the snapshot it began with, so it locks the row, which fails (40001) where that has changed.
create or replace function stratum_guard.admit(tenant_id uuid, seen_version bigint) returns stratum_guard.route
language plpgsql volatile security definer set search_path = stratum_guard, pg_temp as $$
#variable_conflict use_column
declare
  wanted alias for $1;
  place route;
begin
  perform pg_advisory_xact_lock_shared(lock_key(wanted));
  if current_setting('transaction_isolation') = 'read committed' or current_setting('transaction_read_only') = 'on' then
    select * into place from route where tenant_id = wanted;
  else
    select * into place from route where tenant_id = wanted for share;
  end if;
  if place.tenant_id is null then perform fail('TENANT_NOT_FOUND'); end if;
  if place.status = 'suspended' then perform fail('TENANT_SUSPENDED'); end if;
  if place.status <> 'active' then perform fail('TENANT_ARCHIVED'); end if;
  if place.fenced then perform fail('TENANT_UNAVAILABLE', jsonb_build_object('tenant_id', wanted)); end if;
  if place.database_name is not null or place.routing_version <> $2 then
    perform fail('TENANT_ELSEWHERE', jsonb_build_object('database_name', place.database_name, 'routing_version', place.routing_version));
  end if;
  return place;
end $$;
--> statement-breakpoint
-- Begin a batch of a tenant: the first statement of its transaction. `seen_version` is what a database of the
-- tenant's own must be at; the control database, which says where a tenant is, is asked without one.
-- Not SECURITY DEFINER and without a SET clause, or what it sets would end with it.
create or replace function stratum_guard.enter(tenant_id uuid, seen_version bigint default null) returns void
language plpgsql volatile as $$
declare
  before text := pg_catalog.current_setting('app.current_tenant_id', true);
  -- Which transaction this is, without giving it an id: a tenant that the session was given by hand is no entry of ours.
  this text := extract(epoch from pg_catalog.now())::text;
  place stratum_guard.route;
  own_role name;
begin
  if exists (select from pg_catalog.pg_roles r where r.rolname in (current_user, session_user) and (r.rolsuper or r.rolbypassrls)) then
    perform stratum_guard.fail('DATA_ROLE_REFUSED', pg_catalog.jsonb_build_object('role', current_user, 'reason', 'it bypasses row security'));
  end if;
  -- one transaction is one tenant's; and a session that was given a tenant by hand is not to be trusted
  if before <> '' and before <> $1::text then perform stratum_guard.fail('TENANT_MISMATCH'); end if;
  place := stratum_guard.admit($1, $2);
  if pg_catalog.current_setting('app.entered_at', true) is distinct from this then
    -- Rows that an earlier batch left on this session: cursors WITH HOLD, and temporary tables where a role may make them.
    execute 'close all';
    if pg_catalog.pg_my_temp_schema() <> 0 then discard temp; end if;
    perform pg_catalog.set_config('app.current_tenant_id', $1::text, true);
    perform pg_catalog.set_config('app.entered_at', this, true);
  end if;
  if place.schema_name is not null and pg_catalog.to_regrole(stratum_guard.tenant_role($1)::text) is not null then
    own_role := stratum_guard.tenant_role($1);
    if exists (select from pg_catalog.pg_roles r where r.rolname = own_role and (r.rolsuper or r.rolbypassrls)) then
      perform stratum_guard.fail('DATA_ROLE_REFUSED', pg_catalog.jsonb_build_object('role', own_role, 'reason', 'it bypasses row security'));
    elsif not pg_catalog.pg_has_role(session_user, own_role, 'SET') then
      perform stratum_guard.fail('DATA_ROLE_REFUSED', pg_catalog.jsonb_build_object('role', session_user,
        'reason', pg_catalog.format('it may not become %s, the role of this tenant', own_role)));
    end if;
    perform pg_catalog.set_config('role', own_role, true);
  end if;
  -- Set for every tenant, and last, as statements behind it would be planned again. It begins with what the connection
  -- began with (null resets it), as a SET of an earlier batch would lead this one's rows astray, and ends in pg_temp,
  -- which would else come first: a temporary table never stands in for a managed one.
  perform pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', pg_catalog.quote_ident(place.schema_name),
    nullif(pg_catalog.set_config('search_path', null, true), ''), 'pg_temp'), true);
end $$;
--> statement-breakpoint
-- Why a role is not fit for tenants' batches, or null. Asked once for a connection, not in each batch. What a role may
-- become by SET ROLE counts like itself.
create or replace function stratum_guard.role_problem() returns text
language plpgsql stable as $$
declare
  owned text;
begin
  if exists (select from pg_catalog.pg_roles r where (r.rolsuper or r.rolbypassrls) and pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER')) then
    return 'it bypasses row security';
  end if;
  select p.polrelid::pg_catalog.regclass::text into owned
  from pg_catalog.pg_policy p join pg_catalog.pg_class c on c.oid = p.polrelid
  where p.polname = 'tenant_isolation' and pg_catalog.pg_has_role(session_user, c.relowner, 'MEMBER') limit 1;
  if owned is not null then return pg_catalog.format('it owns %s and could drop its policy', owned); end if;
  if pg_catalog.to_regnamespace('stratum') is not null and exists (
    select from pg_catalog.pg_roles r
    where pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER') and pg_catalog.has_schema_privilege(r.oid, 'stratum', 'USAGE')) then
    return 'it may use the control plane''s schema';
  end if;
  return null;
end $$;
--> statement-breakpoint
-- Trigger on a tenant's tables while it is copied elsewhere: notes which rows changed. Its arguments are the tenant
-- and the columns of the primary key.
create or replace function stratum_guard.capture() returns trigger
language plpgsql volatile security definer set search_path = stratum_guard, pg_temp as $$
declare
  changed jsonb;
begin
  foreach changed in array case tg_op
    when 'INSERT' then array[to_jsonb(new)]
    when 'DELETE' then array[to_jsonb(old)]
    else array[to_jsonb(old), to_jsonb(new)] end
  loop
    continue when changed ->> 'tenant_id' is distinct from tg_argv[0];
    insert into captured (tenant_id, table_name, key)
    select tg_argv[0]::uuid, tg_table_name, jsonb_object_agg(k.name, changed -> k.name) from unnest(tg_argv[1:]) as k (name);
  end loop;
  return null;
end $$;
--> statement-breakpoint
-- Tenants' batches come as the data plane's role of the family that owns this schema, and those of tenants with a role as
-- that, which is a member of the family's role for all of them: these may enter, and no more.
do $$
declare
  member name;
begin
  revoke execute on all functions in schema stratum_guard from public;
  for member in
    select r.rolname from pg_namespace n join pg_roles o on o.oid = n.nspowner
      join pg_roles r on r.rolname in (regexp_replace(o.rolname, 'owner$', 'app'), regexp_replace(o.rolname, 'owner$', 'tenants'))
    where n.nspname = 'stratum_guard' and o.rolname <> r.rolname
  loop
    execute format('grant usage on schema stratum_guard to %I', member);
    execute format('grant execute on function stratum_guard.enter(uuid, bigint), stratum_guard.admit(uuid, bigint), stratum_guard.current_tenant_id(),
      stratum_guard.role_problem(), stratum_guard.fail(text, jsonb), stratum_guard.lock_key(uuid), stratum_guard.tenant_role(uuid) to %I', member);
  end loop;
end $$;
