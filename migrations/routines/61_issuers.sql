-- Issuers of tokens that were added while the service runs, and what issuers call tenants. The process judges keys
-- and verifies tokens; here stands which issuers there are, and whom their tokens reach (stratum.token_principal).
-- An issuer is never changed: another one has another id, so a token that was verified by the old one tells.

create or replace function stratum.issuer_json(i stratum.issuers) returns jsonb
language sql immutable parallel safe as $$
  select i.settings || jsonb_build_object('id', i.id, 'tenant_id', i.tenant_id, 'issuer', i.issuer, 'audience', i.audience,
    'created_at', stratum.iso(i.created_at))
$$;
--> statement-breakpoint
-- For the process that verifies a token, so before anybody is known: of the issuers that tokens of these audiences may
-- be of, the first that was stored, or the highest of those bound above it. So no tenant shadows one above it, and none
-- takes the tokens of another branch by storing one later, however high it is itself. Input: { issuer, audiences }.
create or replace function stratum.read_issuer(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
begin
  return (
    with fitting as (
      select i.id, t.path from issuers i left join tenants t on t.id = i.tenant_id
      where i.issuer = input ->> 'issuer' and i.audience = any (array(select jsonb_array_elements_text(input -> 'audiences')))),
    first as (select f.path from fitting f order by f.id limit 1)
    select stratum.issuer_json(i) - 'created_at' from first, fitting f join issuers i using (id)
    where stratum.within(first.path, f.path) order by coalesce(nlevel(f.path), 0), f.id limit 1);
end $$;
--> statement-breakpoint
-- Input: { tenant_id, issuer, audience, settings, of_environment }. Without a tenant the issuer is bound to the caller's
-- own, or to none for a global admin. `of_environment`: the process trusts one of this name and audience anyway.
create or replace function stratum.create_issuer(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('create_issuer', actor, input);
  bound_to uuid := coalesce(input ->> 'tenant_id', who ->> 'top')::uuid;
  settings jsonb := input -> 'settings';
  beyond jsonb;
  created issuers;
begin
  perform stratum.require_size('keys', settings, 65536);
  select jsonb_agg(distinct s.value) into beyond from jsonb_array_elements_text(settings -> 'max_scopes') as s where not stratum.has_scope(who, s.value);
  if beyond is not null then perform stratum.fail('SCOPE_ESCALATION', jsonb_build_object('scopes', beyond)); end if;
  if (settings ->> 'global')::boolean and bound_to is not null then perform stratum.fail('GLOBAL_ADMIN_REQUIRED'); end if;
  if who ->> 'expires_at' is not null then perform stratum.fail('ISSUER_OUTLIVES_KEY'); end if;
  if bound_to is not null then perform stratum.lock_active_tenant(who, bound_to, 'an active tenant'); end if;
  perform stratum.lock_chain(coalesce(bound_to, stratum.system_chain()));
  if (select count(*) from issuers i where i.tenant_id = bound_to) >= 100 then perform stratum.fail('ISSUERS_FULL', '{"maximum": 100}'); end if;
  if not (input ->> 'of_environment')::boolean then
    insert into issuers (id, tenant_id, issuer, audience, settings)
    values (stratum.uuid_v7(), bound_to, input ->> 'issuer', input ->> 'audience', settings)
    on conflict (issuer, audience) do nothing returning * into created;
  end if;
  if created.id is null then perform stratum.fail('ISSUER_EXISTS'); end if;
  perform stratum.record(who, coalesce(bound_to, stratum.system_chain()), 'issuer.created', stratum.resource('issuer', created.id),
    null, stratum.issuer_json(created), jsonb_build_array(jsonb_build_array('issuer', created.issuer)));
  return stratum.issuer_json(created);
end $$;
--> statement-breakpoint
-- Issuers within the caller's reach, newest first.
create or replace function stratum.list_issuers(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('list_issuers', actor, input);
  reach ltree := (who ->> 'path')::ltree;
  wanted integer := (input ->> 'limit')::integer;
  before_id uuid := coalesce((input -> 'after' ->> 0)::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
  rows issuers[];
begin
  if reach is not null then
    rows := array(
      select i from tenants t join issuers i on i.tenant_id = t.id
      where t.path >= reach and t.path < stratum.subtree_end(reach) and i.id < before_id order by i.id desc limit wanted + 1);
  else
    rows := array(select i from issuers i where i.id < before_id order by i.id desc limit wanted + 1);
  end if;
  return jsonb_build_object(
    'data', (select coalesce(jsonb_agg(stratum.issuer_json(r) order by r.id desc), '[]') from unnest(rows[:wanted]) as r),
    'next', case when cardinality(rows) > wanted then jsonb_build_array(rows[wanted].id) end);
end $$;
--> statement-breakpoint
-- What its tokens called tenants stays, for one that is made anew.
create or replace function stratum.delete_issuer(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('delete_issuer', actor, input);
  t tenants;
  old issuers;
begin
  select * into old from issuers where id = (input ->> 'id')::uuid;
  if old.tenant_id is not null then
    select * into t from tenants where id = old.tenant_id for share;
    if not stratum.reaches(who, t.path) then perform stratum.fail('ISSUER_NOT_FOUND'); end if;
  end if;
  perform stratum.lock_chain(coalesce(old.tenant_id, stratum.system_chain()));
  delete from issuers where id = (input ->> 'id')::uuid returning * into old;
  if not found then perform stratum.fail('ISSUER_NOT_FOUND'); end if;
  perform stratum.record(who, coalesce(old.tenant_id, stratum.system_chain()), 'issuer.deleted', stratum.resource('issuer', old.id),
    stratum.issuer_json(old), null, jsonb_build_array(jsonb_build_array('issuer', old.issuer)));
  return stratum.issuer_json(old);
end $$;
--> statement-breakpoint
create or replace function stratum.external_id_json(e stratum.tenant_external_ids) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_build_object('tenant_id', e.tenant_id, 'issuer', e.issuer, 'external_id', e.external_id,
    'reach_tenant_id', e.reach_tenant_id, 'created_at', stratum.iso(e.created_at))
$$;
--> statement-breakpoint
-- The tenant that the tokens of an issuer mean by an external id, or null. It lies within what the issuer is bound to,
-- and the issuer within the reach of who mapped it: whoever maps for its own issuer does so for no other of that name.
create or replace function stratum.tenant_of_external_id(named text, given text, issuer_path stratum.ltree) returns uuid
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return (
    select e.tenant_id from tenant_external_ids e
    join tenants t on t.id = e.tenant_id left join tenants mapper on mapper.id = e.reach_tenant_id
    where e.issuer = named and e.external_id = given
      and stratum.within(t.path, issuer_path) and stratum.within(issuer_path, mapper.path));
end $$;
--> statement-breakpoint
-- True for who may say what tokens of issuers of a name mean: who reaches one of them, where none is bound above them.
-- Where there is none yet, where one is bound to no tenant or is the environment's, that is a global admin. Those of other
-- branches do not count: what is mapped here means nothing to them, and anybody may store one.
create or replace function stratum.reaches_issuers(who jsonb, named text, of_environment boolean) returns boolean
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  return who ->> 'top' is null or not of_environment and (
    select coalesce(bool_or(stratum.within(t.path, top.path)) and bool_and(stratum.within(t.path, top.path) or not stratum.within(top.path, t.path)), false)
    from tenants top, issuers i left join tenants t on t.id = i.tenant_id where top.id = (who ->> 'top')::uuid and i.issuer = named);
end $$;
--> statement-breakpoint
create or replace function stratum.list_external_ids(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('list_external_ids', actor, input);
begin
  return jsonb_build_object('next', null, 'data', (
    select coalesce(jsonb_agg(stratum.external_id_json(e) order by e.issuer, e.external_id), '[]')
    from tenant_external_ids e where e.tenant_id = (input ->> 'id')::uuid));
end $$;
--> statement-breakpoint
-- Input: { id, issuer, external_id, of_environment }. What means one tenant never comes to mean another unless it is
-- deleted there first. Mapping it again changes something only where whoever does so reaches further.
create or replace function stratum.set_external_id(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('set_external_id', actor, input);
  t tenants;
  reach uuid := (who ->> 'top')::uuid;
  old tenant_external_ids;
  new tenant_external_ids;
  elsewhere uuid;
begin
  t := stratum.lock_active_tenant(who, (input ->> 'id')::uuid, 'an active tenant');
  if not stratum.reaches_issuers(who, input ->> 'issuer', (input ->> 'of_environment')::boolean) then perform stratum.fail('GLOBAL_ADMIN_REQUIRED'); end if;
  perform stratum.lock_chain(t.id);
  select * into old from tenant_external_ids e where e.issuer = input ->> 'issuer' and e.external_id = input ->> 'external_id' and e.tenant_id = t.id;
  if not found and (select count(*) from tenant_external_ids e where e.tenant_id = t.id) >= 100 then
    perform stratum.fail('EXTERNAL_IDS_FULL', '{"maximum": 100}');
  end if;
  if old.issuer is not null and stratum.within(
    (select r.path from tenants r where r.id = reach), (select r.path from tenants r where r.id = old.reach_tenant_id))
  then return stratum.external_id_json(old); end if;
  insert into tenant_external_ids as taken (issuer, external_id, tenant_id, reach_tenant_id)
  values (input ->> 'issuer', input ->> 'external_id', t.id, reach)
  on conflict (issuer, external_id) do update set reach_tenant_id = excluded.reach_tenant_id where taken.tenant_id = excluded.tenant_id
  returning * into new;
  if not found then
    -- whose it is, is said to who reaches it
    select o.id into elsewhere from tenant_external_ids e join tenants o on o.id = e.tenant_id
    where e.issuer = input ->> 'issuer' and e.external_id = input ->> 'external_id' and stratum.reaches(who, o.path);
    perform stratum.fail('EXTERNAL_ID_TAKEN', jsonb_build_object('external_id', input -> 'external_id', 'tenant_id', elsewhere));
  end if;
  perform stratum.record(who, t.id, 'external_id.set', stratum.external_id_resource(new),
    case when old.issuer is not null then stratum.external_id_json(old) end, stratum.external_id_json(new),
    jsonb_build_array(jsonb_build_array('issuer', new.issuer)));
  return stratum.external_id_json(new);
end $$;
--> statement-breakpoint
create or replace function stratum.external_id_resource(e stratum.tenant_external_ids) returns jsonb
language sql immutable parallel safe as $$
  select stratum.resource('external_id', e.tenant_id) || jsonb_build_object('issuer', e.issuer, 'external_id', e.external_id)
$$;
--> statement-breakpoint
-- For who may map it, and for who mapped it though others have an issuer of that name now.
create or replace function stratum.delete_external_id(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('delete_external_id', actor, input);
  t tenants;
  old tenant_external_ids;
begin
  select * into t from tenants where id = (input ->> 'id')::uuid for share;
  if not stratum.reaches(who, t.path) then perform stratum.fail('TENANT_NOT_FOUND'); end if;
  perform stratum.lock_chain(t.id);
  select * into old from tenant_external_ids e
  where e.issuer = input ->> 'issuer' and e.external_id = input ->> 'external_id' and e.tenant_id = t.id for update;
  if not found then perform stratum.fail('EXTERNAL_ID_NOT_FOUND'); end if;
  if not stratum.reaches_issuers(who, old.issuer, (input ->> 'of_environment')::boolean)
    and not stratum.reaches(who, (select mapper.path from tenants mapper where mapper.id = old.reach_tenant_id))
  then perform stratum.fail('GLOBAL_ADMIN_REQUIRED'); end if;
  delete from tenant_external_ids e where e.issuer = old.issuer and e.external_id = old.external_id;
  perform stratum.record(who, t.id, 'external_id.deleted', stratum.external_id_resource(old), stratum.external_id_json(old), null,
    jsonb_build_array(jsonb_build_array('issuer', old.issuer)));
  return stratum.external_id_json(old);
end $$;
