-- Who asks, and may they. Every operation begins with stratum.authorize; there is no second place.
--
-- A principal is JSON: { type, id, tenant_id, top, path, scopes, acting_as, request_id, source_ip }.
-- `top` and `path` are the tenant that its reach begins at, null for the whole installation. Outside its
-- reach everything answers as if it did not exist.

-- Refuse to act for or on the host of a tenant that is not active.
create or replace function stratum.require_resolvable(status text) returns void
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  if status = 'suspended' then perform stratum.fail('TENANT_SUSPENDED'); end if;
  if status = 'archived' then perform stratum.fail('TENANT_ARCHIVED'); end if;
end $$;
--> statement-breakpoint
-- The id of the tenant that a text names, by id or by slug, or null.
create or replace function stratum.tenant_named(given text) returns uuid
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  if given ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' then
    return (select t.id from tenants t where t.id = given::uuid);
  end if;
  return (select t.id from tenants t where t.slug = given);
end $$;
--> statement-breakpoint
create or replace function stratum.api_key_principal(hashes jsonb) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  found_key record;
begin
  select k.id, k.tenant_id, k.scopes, k.expires_at, t.path, t.status into found_key
  from api_keys k left join tenants t on t.id = k.tenant_id
  where k.key_hash = any (array(select jsonb_array_elements_text(hashes)))
    and k.revoked_at is null and (k.expires_at is null or k.expires_at > now());
  if not found then perform stratum.fail('API_KEY_INVALID'); end if;
  perform stratum.require_resolvable(found_key.status);
  return jsonb_build_object('type', 'api_key', 'id', found_key.id, 'tenant_id', found_key.tenant_id,
    'top', found_key.tenant_id, 'path', found_key.path, 'scopes', to_jsonb(found_key.scopes), 'expires_at', found_key.expires_at);
end $$;
--> statement-breakpoint
-- A token was verified before it came here, by a stored issuer that must still stand. Its tenant claim is what the
-- issuer calls a tenant, else an id or slug: in this order, as anybody may take a slug that an issuer uses. It must lie
-- within what the issuer is bound to; without a claim the token reaches that, and everything only if the issuer is global.
create or replace function stratum.token_principal(token jsonb) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  issuer_path ltree;
  bound record;
begin
  if token ->> 'issuer_id' is not null and not exists (select from issuers i where i.id = (token ->> 'issuer_id')::uuid) then
    perform stratum.fail('ISSUER_OUTDATED', jsonb_build_object('issuer_id', token -> 'issuer_id'));
  end if;
  if token ->> 'issuer_tenant_id' is not null then
    select t.path into issuer_path from tenants t where t.id = (token ->> 'issuer_tenant_id')::uuid;
    if not found then
      perform stratum.fail('TOKEN_INVALID', '{"reason": "its issuer is bound to a tenant that does not exist"}');
    end if;
  elsif token ->> 'tenant' is null and not (token ->> 'global')::boolean then
    perform stratum.fail('TOKEN_INVALID', '{"reason": "it names no tenant and its issuer is bound to none"}');
  end if;
  select t.id, t.path, t.status into bound from tenants t
  where t.id = coalesce(stratum.tenant_of_external_id(token ->> 'issuer', token ->> 'tenant', issuer_path),
                        stratum.tenant_named(token ->> 'tenant'),
                        case when token ->> 'tenant' is null then (token ->> 'issuer_tenant_id')::uuid end);
  if bound.id is null and token ->> 'tenant' is not null or not stratum.within(bound.path, issuer_path) then
    perform stratum.fail('TOKEN_INVALID', '{"reason": "it names no tenant that its issuer may speak for"}');
  end if;
  perform stratum.require_resolvable(bound.status);
  return jsonb_build_object('type', 'token', 'id', token ->> 'subject', 'issuer', token ->> 'issuer', 'issuer_id', token ->> 'issuer_id',
    'tenant_id', bound.id, 'top', bound.id, 'path', bound.path, 'scopes', token -> 'scopes');
end $$;
--> statement-breakpoint
create or replace function stratum.principal(actor jsonb) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  credential jsonb := actor -> 'credential';
  who jsonb;
begin
  if (actor ->> 'exposed')::boolean and exists (select from pg_roles r where r.rolname = session_user and (r.rolsuper or r.rolbypassrls)) then
    perform stratum.fail('DATABASE_ROLE_REFUSED');
  end if;
  case credential ->> 'type'
    when 'api_key' then who := stratum.api_key_principal(credential -> 'hashes');
    when 'token' then who := stratum.token_principal(credential);
    -- holds no scope, so no operation is for it
    when 'visitor' then who := '{"type": "visitor", "id": null, "tenant_id": null, "top": null, "path": null, "scopes": []}';
    when 'embedded' then
      who := jsonb_build_object('type', credential ->> 'actor_type', 'id', credential ->> 'actor_id',
        'tenant_id', null, 'top', null, 'path', null, 'scopes', '["admin"]'::jsonb);
    else perform stratum.fail('AUTHENTICATION_REQUIRED');
  end case;
  return who || jsonb_build_object('request_id', actor -> 'request_id', 'source_ip', actor -> 'source_ip');
end $$;
--> statement-breakpoint
-- The one tenant that these parts of a request name, or null. Each must lie within `reach`, and all must
-- agree; that they differ is said only to who reaches every one of them.
create or replace function stratum.agreed_tenant(named jsonb, reach stratum.ltree) returns uuid
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  part jsonb;
  found_id uuid;
  agreed uuid;
  differ boolean := false;
begin
  for part in select value from jsonb_array_elements(coalesce(named, '[]')) loop
    if part ->> 'source' = 'subdomain' then
      select t.id into found_id from tenants t
      where t.slug = replace(part ->> 'tenant', '-', '_') and stratum.subdomain(t.slug) = part ->> 'tenant';
    elsif part ->> 'source' = 'domain' then
      -- a claim is nobody's word but its own: only the verified one names a tenant
      select d.tenant_id into found_id from custom_domains d where d.domain = part ->> 'tenant' and d.verified_at is not null;
    else
      found_id := stratum.tenant_named(part ->> 'tenant');
    end if;
    if found_id is null or not (select stratum.within(t.path, reach) from tenants t where t.id = found_id) then
      perform stratum.fail('TENANT_NOT_FOUND');
    end if;
    differ := differ or agreed <> found_id;
    agreed := found_id;
  end loop;
  if differ then perform stratum.fail('TENANT_MISMATCH'); end if;
  return agreed;
end $$;
--> statement-breakpoint
-- Narrow a principal to the tenant its request was sent to: there it acts as that tenant, and reaches no
-- further than its subtree.
create or replace function stratum.narrow(who jsonb, named jsonb) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  host record;
begin
  select t.id, t.path, t.status into host from tenants t
  where t.id = stratum.agreed_tenant(named, (who ->> 'path')::ltree);
  if not found then return who; end if;
  perform stratum.require_resolvable(host.status);
  return who || jsonb_build_object('path', host.path, 'top', host.id)
    || case when who ->> 'tenant_id' = host.id::text then '{}' else jsonb_build_object('acting_as', host.id) end;
end $$;
--> statement-breakpoint
-- Fail unless the principal reaches what one rule of an operation names in its input.
create or replace function stratum.require_reach(who jsonb, rule jsonb, input jsonb) returns void
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  reach ltree := (who ->> 'path')::ltree;
  named text := input ->> (rule ->> 'field');
  target record;
  at_the_top boolean := false;
begin
  case rule ->> 'kind'
    when 'tenant', 'under' then
      if named is null then
        if rule ->> 'kind' = 'tenant' then return; end if;
        at_the_top := true;
      else
        select t.path into target from tenants t where t.id = named::uuid;
        if not found or not stratum.within(target.path, reach) then perform stratum.fail('TENANT_NOT_FOUND'); end if;
      end if;
    when 'global' then
      at_the_top := true;
    when 'under_each' then
      -- a parent that the same batch makes is under one that is judged here
      perform stratum.require_reach(who, '{"kind": "under", "field": "parent_id"}', each.value)
      from jsonb_array_elements(input -> (rule ->> 'field')) as each where each.value ->> 'parent_slug' is null;
    when 'parent' then
      select t.path, p.path as parent_path into target
      from tenants t left join tenants p on p.id = t.parent_id where t.id = named::uuid;
      if not found or reach is not null and (target.parent_path is null or not stratum.within(target.parent_path, reach)) then
        perform stratum.fail('TENANT_NOT_FOUND');
      end if;
      at_the_top := target.parent_path is null;
    when 'api_key' then
      select k.id, t.path into target from api_keys k left join tenants t on t.id = k.tenant_id where k.id = named::uuid;
      if not found or reach is not null and (target.path is null or not stratum.within(target.path, reach)) then
        perform stratum.fail('API_KEY_NOT_FOUND');
      end if;
      at_the_top := target.path is null;
    when 'issuer' then
      select i.id, t.path into target from issuers i left join tenants t on t.id = i.tenant_id where i.id = named::uuid;
      if not found or reach is not null and (target.path is null or not stratum.within(target.path, reach)) then
        perform stratum.fail('ISSUER_NOT_FOUND');
      end if;
      at_the_top := target.path is null;
    when 'job' then
      select j.id, t.path into target from jobs j left join tenants t on t.id = j.tenant_id where j.id = named::uuid;
      if not found or reach is not null and (target.path is null or not stratum.within(target.path, reach)) then
        perform stratum.fail('JOB_NOT_FOUND');
      end if;
      at_the_top := target.path is null;
  end case;
  if at_the_top and not (reach is null and stratum.holds_scope(array(select jsonb_array_elements_text(who -> 'scopes')), 'admin')) then
    perform stratum.fail('GLOBAL_ADMIN_REQUIRED');
  end if;
end $$;
--> statement-breakpoint
-- True while a tenant lies within a principal's reach as the tree is now.
create or replace function stratum.reaches(who jsonb, p stratum.ltree) returns boolean
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  return p is not null and (who ->> 'top' is null
    or exists (select from tenants top where top.id = (who ->> 'top')::uuid and stratum.within(p, top.path)));
end $$;
--> statement-breakpoint
-- True when the principal's scopes allow what is needed.
create or replace function stratum.has_scope(who jsonb, needed text) returns boolean
language sql stable parallel safe as $$
  select stratum.holds_scope(array(select jsonb_array_elements_text(who -> 'scopes')), needed)
$$;
--> statement-breakpoint
-- Serialise what changes the shape of the tree: single creates and status changes share it, a move or a
-- cascade has it alone. With row locks only, a create under a moving subtree kept a stale path. A table's lock
-- and not an advisory one, which any role of the database could take and keep.
create or replace function stratum.lock_structure(mode text) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  case mode
    when 'shared' then lock table structure_lock in share mode;
    when 'exclusive' then lock table structure_lock in exclusive mode;
  end case;
end $$;
--> statement-breakpoint
-- The first line of every operation: who asks (401), with which scope (403), within which reach (404).
-- The structure lock is taken in between, so that nobody unknown can hold it and what was reached stays
-- where it was while the operation runs. An answer that the process is to `keep` gets the feed's position from before
-- anything is read: what commits while the operation runs is then told of later as a change.
create or replace function stratum.authorize(operation text, actor jsonb, input jsonb, structure text default 'none') returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  rule record;
  feed jsonb := case when (input ->> 'keep')::boolean then stratum.feed_position() end;
  who jsonb := stratum.principal(actor);
begin
  select o.scope, o.reach, o.also_scope into rule from operations o where o.name = operation;
  if not found then perform stratum.fail('DATABASE_OUTDATED'); end if;
  if not stratum.has_scope(who, rule.scope) then
    perform stratum.fail('SCOPE_REQUIRED', jsonb_build_object('scope', rule.scope));
  end if;
  if (input ->> (rule.also_scope ->> 'field'))::boolean and not stratum.has_scope(who, rule.also_scope ->> 'scope') then
    perform stratum.fail('SCOPE_REQUIRED', jsonb_build_object('scope', rule.also_scope -> 'scope'));
  end if;
  if structure <> 'none' then
    perform stratum.lock_structure(structure);
    who := stratum.principal(actor); -- its own tenant may have moved while this waited
  end if;
  who := stratum.narrow(who, actor -> 'named');
  perform stratum.require_reach(who, r.value, input) from jsonb_array_elements(rule.reach) as r;
  return who || case when feed is null then '{}' else jsonb_build_object('feed', feed) end;
end $$;
--> statement-breakpoint
-- What a caller may know of a principal.
create or replace function stratum.principal_json(who jsonb) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_build_object('type', who -> 'type', 'id', who -> 'id', 'tenant_id', who -> 'tenant_id', 'scopes', who -> 'scopes')
$$;
--> statement-breakpoint
-- Operation: who is this? Asked alone when a request cannot be read, because 401 comes before 400.
create or replace function stratum.authenticate(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
begin
  return stratum.principal_json(stratum.principal(actor));
end $$;
