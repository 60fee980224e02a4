-- Permissions flow down the tree like config, and carry how they may be passed on:
--
--   LOCKED     what is set below is shadowed
--   INHERITED  what is set below counts with its value, and passes on as INHERITED
--   DELEGATED  what is set below counts with its value and its mode
--
-- So the topmost policy that is not DELEGATED decides: if LOCKED it is the answer, else the nearest policy
-- is. Deleting follows the policy's revocation mode; see delete_permission.

create or replace function stratum.permission_policy_json(p stratum.permission_policies) returns jsonb
language sql immutable parallel safe as $$
  select case when p.id is not null then jsonb_build_object('id', p.id, 'tenant_id', p.tenant_id, 'key', p.key, 'value', p.value, 'mode', p.mode,
    'revocation_mode', p.revocation_mode, 'created_at', stratum.iso(p.created_at), 'updated_at', stratum.iso(p.updated_at)) end
$$;
--> statement-breakpoint
-- The effective permissions on a path, by key.
create or replace function stratum.resolved_permissions(of_path stratum.ltree) returns jsonb
language plpgsql stable parallel safe set search_path = stratum, pg_temp as $$
begin
  return (
    with chain as (
      select p.id, p.tenant_id, p.key, p.value, p.mode, l.depth,
        min(l.depth) filter (where p.mode <> 'DELEGATED') over (partition by p.key) as deciding_depth
      from stratum.lineage(of_path) as l
      join stratum.tenants a on a.path operator(stratum.=) l.path
      join stratum.permission_policies p on p.tenant_id = a.id
    ), decided as (
      select key, coalesce(max(mode) filter (where depth = deciding_depth), 'DELEGATED') as mode, min(deciding_depth) as depth
      from chain group by key
    ), effective as (
      select distinct on (c.key) c.key, c.id, c.tenant_id, c.value, d.mode
      from chain c join decided d on d.key = c.key
      where d.mode <> 'LOCKED' or c.depth = d.depth
      order by c.key, c.depth desc
    )
    select coalesce(jsonb_object_agg(e.key, jsonb_build_object('policy_id', e.id, 'key', e.key, 'value', e.value, 'mode', e.mode,
      'source_tenant_id', e.tenant_id, 'locked', e.mode = 'LOCKED', 'delegated', e.mode = 'DELEGATED')), '{}')
    from effective e);
end $$;
--> statement-breakpoint
-- Fail when what holds above a tenant does not let it write this mode for this key.
create or replace function stratum.require_permission_writable(t stratum.tenants, policy_key text, mode text) returns void
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  above jsonb;
  facts jsonb;
begin
  if t.parent_id is null then return; end if;
  above := stratum.resolved_permissions(subpath(t.path, 0, -1)) -> policy_key;
  facts := jsonb_build_object('key', policy_key, 'source_tenant_id', above -> 'source_tenant_id',
    'source_depth', (select nlevel(s.path) - 1 from tenants s where s.id = (above ->> 'source_tenant_id')::uuid));
  if above ->> 'mode' = 'LOCKED' then perform stratum.fail('PERMISSION_LOCKED', facts); end if;
  if above ->> 'mode' = 'INHERITED' and mode <> 'INHERITED' then perform stratum.fail('PERMISSION_NOT_DELEGATED', facts); end if;
end $$;
--> statement-breakpoint
create or replace function stratum.permission_resource(p stratum.permission_policies) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_build_object('type', 'permission', 'id', p.id, 'tenant_id', p.tenant_id, 'key', p.key)
$$;
--> statement-breakpoint
create or replace function stratum.create_permission(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('create_permission', actor, input);
  t tenants := stratum.lock_active_tenant(who, (input ->> 'id')::uuid, 'an active tenant');
  created permission_policies;
begin
  perform stratum.lock_chain(t.id);
  perform stratum.require_permission_writable(t, input ->> 'key', input ->> 'mode');
  insert into permission_policies (id, tenant_id, key, value, mode, revocation_mode)
  values (stratum.uuid_v7(), t.id, input ->> 'key', input -> 'value', input ->> 'mode', input ->> 'revocation_mode')
  on conflict (tenant_id, key) do nothing returning * into created;
  if not found then perform stratum.fail('PERMISSION_EXISTS', jsonb_build_object('key', input -> 'key')); end if;
  perform stratum.record(who, t.id, 'permission.created', stratum.permission_resource(created),
    null, stratum.permission_policy_json(created), jsonb_build_array(jsonb_build_array('subtree', t.path)));
  return stratum.permission_policy_json(created);
end $$;
--> statement-breakpoint
-- A tenant's own policy, locked for change. PERMANENT ones are frozen.
create or replace function stratum.lock_permission(of_tenant uuid, policy_id uuid) returns stratum.permission_policies
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  p permission_policies;
begin
  select * into p from permission_policies where id = policy_id and tenant_id = of_tenant for update;
  if not found then perform stratum.fail('PERMISSION_NOT_FOUND'); end if;
  if p.revocation_mode = 'PERMANENT' then perform stratum.fail('PERMISSION_REVOCATION_DENIED', jsonb_build_object('policy_id', p.id)); end if;
  return p;
end $$;
--> statement-breakpoint
create or replace function stratum.update_permission(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('update_permission', actor, input);
  t tenants := stratum.lock_active_tenant(who, (input ->> 'id')::uuid, 'an active tenant');
  old permission_policies;
  new permission_policies;
begin
  perform stratum.lock_chain(t.id);
  old := stratum.lock_permission(t.id, (input ->> 'policy_id')::uuid);
  perform stratum.require_permission_writable(t, old.key, coalesce(input ->> 'mode', old.mode));
  update permission_policies set value = coalesce(input -> 'value', value), mode = coalesce(input ->> 'mode', mode),
    revocation_mode = coalesce(input ->> 'revocation_mode', revocation_mode), updated_at = now()
  where id = old.id returning * into new;
  perform stratum.record(who, t.id, 'permission.updated', stratum.permission_resource(new),
    stratum.permission_policy_json(old), stratum.permission_policy_json(new), jsonb_build_array(jsonb_build_array('subtree', t.path)));
  return stratum.permission_policy_json(new);
end $$;
--> statement-breakpoint
-- CASCADE: the policies of this key in the whole subtree go too, PERMANENT ones excepted.
create or replace function stratum.revoke_below(t stratum.tenants, policy_key text) returns uuid[]
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  revoked uuid[];
begin
  -- From the top down: two that revoke one above the other must not wait for each other.
  revoked := array(
    select p.id from permission_policies p join tenants d on d.id = p.tenant_id
    where p.key = policy_key and p.revocation_mode <> 'PERMANENT' and d.path > t.path and d.path < stratum.subtree_end(t.path)
    order by d.path for update of p);
  delete from permission_policies where id = any (revoked);
  return revoked;
end $$;
--> statement-breakpoint
-- SOFT: each direct child in which the policy is in effect keeps it as a copy of its own, so that what the
-- subtree effectively had survives. A copy replaces a shadowed policy unless that is PERMANENT.
create or replace function stratum.hand_down(t stratum.tenants, p stratum.permission_policies) returns uuid[]
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  child tenants;
  copy_id uuid;
  copies uuid[] := '{}';
begin
  -- Locked against writers of its permissions: a policy created meanwhile would be taken for a shadowed one.
  for child in select * from tenants where parent_id = t.id order by id for no key update loop
    continue when stratum.resolved_permissions(child.path) -> p.key ->> 'policy_id' is distinct from p.id::text;
    insert into permission_policies as existing (id, tenant_id, key, value, mode, revocation_mode)
    values (stratum.uuid_v7(), child.id, p.key, p.value, p.mode, p.revocation_mode)
    on conflict (tenant_id, key) do update
      set id = excluded.id, value = excluded.value, mode = excluded.mode, revocation_mode = excluded.revocation_mode, updated_at = now()
      where existing.revocation_mode <> 'PERMANENT'
    returning existing.id into copy_id;
    if found then copies := copies || copy_id; end if;
  end loop;
  return copies;
end $$;
--> statement-breakpoint
create or replace function stratum.delete_permission(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  -- It locks tenants at two levels, and a move the same ones in an order of its own: so not at once.
  who jsonb := stratum.authorize('delete_permission', actor, input, 'shared');
  t tenants := stratum.lock_active_tenant(who, (input ->> 'id')::uuid, 'an active tenant');
  old permission_policies;
  copies uuid[] := '{}';
  revoked uuid[] := '{}';
begin
  perform stratum.lock_chain(t.id);
  old := stratum.lock_permission(t.id, (input ->> 'policy_id')::uuid);
  if old.revocation_mode = 'SOFT' then
    copies := stratum.hand_down(t, old);
  else
    revoked := stratum.revoke_below(t, old.key);
  end if;
  delete from permission_policies where id = old.id;
  perform stratum.record(who, t.id, 'permission.deleted', stratum.permission_resource(old), stratum.permission_policy_json(old),
    jsonb_build_object('revoked_policy_ids', revoked, 'copied_policy_ids', copies), jsonb_build_array(jsonb_build_array('subtree', t.path)));
  return stratum.permission_policy_json(old);
end $$;
--> statement-breakpoint
create or replace function stratum.resolve_permissions(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('resolve_permissions', actor, input);
begin
  return jsonb_build_object('permissions',
    (select stratum.resolved_permissions(t.path) from tenants t where t.id = (input ->> 'id')::uuid));
end $$;
