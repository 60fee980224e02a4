-- Resolving: which tenant a request is for, who asks, and all that holds there, in one answer.

-- Everything an application needs to know of a tenant. Secrets stay behind.
create or replace function stratum.context_json(who jsonb, tenant_id uuid) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  t tenants;
begin
  select * into strict t from tenants where id = tenant_id;
  return jsonb_build_object(
    'tenant_id', t.id, 'tenant', stratum.tenant_json(t), 'ancestors', stratum.ancestors_json(t.path, (who ->> 'path')::ltree),
    'config', stratum.resolved_config(t.id, t.path, false), 'permissions', stratum.resolved_permissions(t.path),
    'isolation', jsonb_build_object('strategy', t.isolation_strategy, 'name', t.isolation_name, 'status', t.provisioning_status),
    'region', null, 'principal', stratum.principal_json(who), 'version', pg_current_snapshot()::text)
    || case when who -> 'acting_as' is null then '{}' else jsonb_build_object('acting_as', who -> 'acting_as') end;
end $$;
--> statement-breakpoint
-- Of a context that the process is to keep: what it hangs on besides the names that were asked for. `who` is who asks;
-- `principal` its API key, `until` the expiry of that, `feed` where the change feed stood before anything was read.
create or replace function stratum.keeping(who jsonb, tenant_id uuid) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return jsonb_build_object('keeping', jsonb_build_object(
    'path', (select t.path::text from tenants t where t.id = keeping.tenant_id), 'until', who -> 'expires_at',
    'principal', case who ->> 'type' when 'api_key' then who -> 'id' end, 'feed', who -> 'feed'));
end $$;
--> statement-breakpoint
-- The caller's own context: the tenant its request was sent to, else the one it is bound to.
create or replace function stratum.get_context(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_context', actor, input);
  tenant_id uuid := (who ->> 'top')::uuid;
begin
  if tenant_id is null then perform stratum.fail('TENANT_REQUIRED'); end if;
  return stratum.context_json(who, tenant_id) || case when (input ->> 'keep')::boolean then stratum.keeping(who, tenant_id) else '{}' end;
end $$;
--> statement-breakpoint
-- The context of the tenant that a host names, for a visitor: nobody known, who reaches nothing else. Callable without
-- a credential, as the gateway asks for every request that it forwards.
create or replace function stratum.visit_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  feed jsonb := stratum.feed_position();
  who jsonb := stratum.narrow(stratum.principal(actor), actor -> 'named') || jsonb_build_object('feed', feed);
begin
  if who ->> 'top' is null then perform stratum.fail('TENANT_NOT_FOUND'); end if;
  return stratum.context_json(who, (who ->> 'top')::uuid)
    || case when (input ->> 'keep')::boolean then stratum.keeping(who, (who ->> 'top')::uuid) else '{}' end;
end $$;
--> statement-breakpoint
-- The context of a tenant within reach, whatever its status.
create or replace function stratum.get_tenant_context(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_tenant_context', actor, input);
begin
  return stratum.context_json(who, (input ->> 'id')::uuid);
end $$;
--> statement-breakpoint
-- Resolve on behalf of someone else: a server asks for what its own caller's host, path and token say.
-- All of it must lie within the server's reach. A token's principal may act on a tenant below its own; if
-- the parts name tenants that do not fit, TENANT_MISMATCH, as the caller reaches them all.
create or replace function stratum.resolve(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('resolve', actor, input);
  reach ltree := (who ->> 'path')::ltree;
  named uuid := stratum.agreed_tenant(input -> 'named', reach);
  asker jsonb := who;
  bearer jsonb;
  fits boolean;
begin
  if input -> 'credential' is not null then
    bearer := stratum.principal(actor || jsonb_build_object('credential', input -> 'credential'));
    if bearer ->> 'path' is not null and not stratum.within((bearer ->> 'path')::ltree, reach) then perform stratum.fail('TENANT_NOT_FOUND'); end if;
    select stratum.within(t.path, (bearer ->> 'path')::ltree) into fits from tenants t where t.id = named;
    if not fits then perform stratum.fail('TENANT_MISMATCH'); end if;
    who := bearer;
  end if;
  if named is not null then
    who := stratum.narrow(who, jsonb_build_array(jsonb_build_object('source', 'resolved', 'tenant', named)));
  elsif bearer is not null then
    named := (who ->> 'top')::uuid;
  end if;
  -- never the caller's own tenant: what it asked about names none
  if named is null then perform stratum.fail('TENANT_REQUIRED'); end if;
  return stratum.context_json(who, named) || case when (input ->> 'keep')::boolean then stratum.keeping(asker, named) else '{}' end;
end $$;
--> statement-breakpoint
-- For admins: what the database is, and what it holds.
create or replace function stratum.get_health(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_health', actor, input);
begin
  return jsonb_build_object('server_version', current_setting('server_version'), 'role', session_user,
    'role_bypasses_row_security', (select r.rolsuper or r.rolbypassrls from pg_roles r where r.rolname = session_user),
    'migration', (select max(m.name) from stratum.migrations m where m.name ~ '^\d{4}_'));
end $$;
