-- API keys. The key itself never comes here: the process makes it, shows it once, and sends its HMAC.

create or replace function stratum.api_key_json(k stratum.api_keys) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_build_object('id', k.id, 'tenant_id', k.tenant_id, 'name', k.name, 'hint', k.hint, 'scopes', to_jsonb(k.scopes),
    'expires_at', stratum.iso(k.expires_at), 'revoked_at', stratum.iso(k.revoked_at), 'created_at', stratum.iso(k.created_at))
$$;
--> statement-breakpoint
-- Without a tenant the key gets the caller's own reach: its tenant, or everything for a global admin.
create or replace function stratum.create_api_key(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('create_api_key', actor, input);
  bound_to uuid := coalesce(input ->> 'tenant_id', who ->> 'top')::uuid;
  beyond jsonb;
  created api_keys;
begin
  select jsonb_agg(s.value) into beyond from jsonb_array_elements_text(input -> 'scopes') as s where not stratum.has_scope(who, s.value);
  if beyond is not null then perform stratum.fail('SCOPE_ESCALATION', jsonb_build_object('scopes', beyond)); end if;
  if bound_to is not null then perform stratum.lock_active_tenant(who, bound_to, 'an active tenant'); end if;
  perform stratum.lock_chain(coalesce(bound_to, stratum.system_chain()));
  insert into api_keys (id, tenant_id, name, key_hash, hint, scopes, expires_at)
  values (stratum.uuid_v7(), bound_to, input ->> 'name', input ->> 'key_hash', input ->> 'hint',
    array(select jsonb_array_elements_text(input -> 'scopes')), (input ->> 'expires_at')::timestamptz)
  returning * into created;
  perform stratum.record(who, coalesce(bound_to, stratum.system_chain()), 'api_key.created', stratum.resource('api_key', created.id),
    null, stratum.api_key_json(created), jsonb_build_array(jsonb_build_array('principal', created.id)));
  return stratum.api_key_json(created);
end $$;
--> statement-breakpoint
-- Keys within the caller's reach, newest first, revoked ones included.
create or replace function stratum.list_api_keys(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('list_api_keys', actor, input);
  reach ltree := (who ->> 'path')::ltree;
  wanted integer := (input ->> 'limit')::integer;
  before_id uuid := coalesce((input -> 'after' ->> 0)::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
  rows api_keys[];
begin
  select coalesce(array_agg(page.k), '{}') into rows from (
    select k from api_keys k left join tenants t on t.id = k.tenant_id
    where k.id < before_id and (reach is null or stratum.within(t.path, reach))
      and (input ->> 'tenant_id' is null or k.tenant_id = (input ->> 'tenant_id')::uuid)
    order by k.id desc limit wanted + 1
  ) as page;
  return jsonb_build_object(
    'data', (select coalesce(jsonb_agg(stratum.api_key_json(r) order by r.id desc), '[]') from unnest(rows[:wanted]) as r),
    'next', case when cardinality(rows) > wanted then jsonb_build_array(rows[wanted].id) end);
end $$;
--> statement-breakpoint
create or replace function stratum.get_api_key(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_api_key', actor, input);
begin
  return (select stratum.api_key_json(k) from api_keys k where k.id = (input ->> 'id')::uuid);
end $$;
--> statement-breakpoint
-- Revoking twice is no error: what was wanted holds.
create or replace function stratum.revoke_api_key(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('revoke_api_key', actor, input);
  old api_keys;
  new api_keys;
begin
  select * into strict old from api_keys where id = (input ->> 'id')::uuid;
  perform stratum.lock_chain(coalesce(old.tenant_id, stratum.system_chain()));
  select * into strict old from api_keys where id = old.id for update;
  if old.revoked_at is not null then return stratum.api_key_json(old); end if;
  update api_keys set revoked_at = now() where id = old.id returning * into new;
  perform stratum.record(who, coalesce(old.tenant_id, stratum.system_chain()), 'api_key.revoked', stratum.resource('api_key', new.id),
    stratum.api_key_json(old), stratum.api_key_json(new), jsonb_build_array(jsonb_build_array('principal', new.id)));
  return stratum.api_key_json(new);
end $$;
