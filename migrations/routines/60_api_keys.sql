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
    -- a key that expires makes none that outlives it
    array(select jsonb_array_elements_text(input -> 'scopes')), least((input ->> 'expires_at')::timestamptz, (who ->> 'expires_at')::timestamptz))
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
  -- three plans for three questions: one tenant's, those of a subtree, all
  if input ->> 'tenant_id' is not null then
    rows := array(
      select k from api_keys k where k.tenant_id = (input ->> 'tenant_id')::uuid and k.id < before_id order by k.id desc limit wanted + 1);
  elsif reach is not null then
    rows := array(
      select k from tenants t join api_keys k on k.tenant_id = t.id
      where t.path >= reach and t.path < stratum.subtree_end(reach) and k.id < before_id order by k.id desc limit wanted + 1);
  else
    rows := array(select k from api_keys k where k.id < before_id order by k.id desc limit wanted + 1);
  end if;
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
  t tenants;
  old api_keys;
  new api_keys;
begin
  select * into strict old from api_keys where id = (input ->> 'id')::uuid;
  if old.tenant_id is not null then
    select * into t from tenants where id = old.tenant_id for share;
    if not stratum.reaches(who, t.path) then perform stratum.fail('API_KEY_NOT_FOUND'); end if;
  end if;
  perform stratum.lock_chain(coalesce(old.tenant_id, stratum.system_chain()));
  select * into strict old from api_keys where id = old.id for update;
  if old.revoked_at is not null then return stratum.api_key_json(old); end if;
  update api_keys set revoked_at = now() where id = old.id returning * into new;
  perform stratum.record(who, coalesce(old.tenant_id, stratum.system_chain()), 'api_key.revoked', stratum.resource('api_key', new.id),
    stratum.api_key_json(old), stratum.api_key_json(new), jsonb_build_array(jsonb_build_array('principal', new.id)));
  return stratum.api_key_json(new);
end $$;
