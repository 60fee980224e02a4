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
-- Fail when what holds above a tenant does not let it write this mode for this key; with the tenant whose policy decides
-- that, which need not be the nearest one.
create or replace function stratum.require_permission_writable(t stratum.tenants, policy_key text, mode text) returns void
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  deciding record;
  facts jsonb;
begin
  if t.parent_id is null then return; end if;
  select a.id, l.depth, p.mode into deciding
  from stratum.lineage(subpath(t.path, 0, -1)) as l join tenants a on a.path = l.path join permission_policies p on p.tenant_id = a.id
  where p.key = policy_key and p.mode <> 'DELEGATED' order by l.depth limit 1;
  facts := jsonb_build_object('key', policy_key, 'source_tenant_id', deciding.id, 'source_depth', deciding.depth);
  if deciding.mode = 'LOCKED' then perform stratum.fail('PERMISSION_LOCKED', facts); end if;
  if deciding.mode = 'INHERITED' and mode <> 'INHERITED' then perform stratum.fail('PERMISSION_NOT_DELEGATED', facts); end if;
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
  perform stratum.require_size('value', input -> 'value', 65536);
  insert into permission_policies (id, tenant_id, key, value, mode, revocation_mode)
  values (stratum.uuid_v7(), t.id, input ->> 'key', input -> 'value', input ->> 'mode', input ->> 'revocation_mode')
  on conflict (tenant_id, key) do nothing returning * into created;
  if (select count(*) > 1000 from permission_policies p where p.tenant_id = t.id) then
    perform stratum.fail('PERMISSIONS_FULL', '{"maximum_policies": 1000}');
  end if;
  if created.id is null then perform stratum.fail('PERMISSION_EXISTS', jsonb_build_object('key', input -> 'key')); end if;
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
  perform stratum.require_size('value', input -> 'value', 65536);
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
-- subtree effectively had survives. It is in effect in all children or in none of those that have none of their
-- own, as they share all that is above; a child's own is shadowed only by LOCKED, and then replaced unless PERMANENT.
create or replace function stratum.hand_down(t stratum.tenants, p stratum.permission_policies) returns uuid[]
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  effective jsonb := stratum.resolved_permissions(t.path) -> p.key;
  copies uuid[];
begin
  if effective ->> 'policy_id' <> p.id::text then return '{}'; end if;
  -- Locked against writers of its permissions: a policy created meanwhile would be taken for a shadowed one.
  perform from tenants where parent_id = t.id order by id for no key update;
  with handed as (
    insert into permission_policies as existing (id, tenant_id, key, value, mode, revocation_mode)
    select stratum.uuid_v7(), child.id, p.key, p.value, p.mode, p.revocation_mode from tenants child where child.parent_id = t.id
    on conflict (tenant_id, key) do update
      set id = excluded.id, value = excluded.value, mode = excluded.mode, revocation_mode = excluded.revocation_mode,
        created_at = now(), updated_at = now()
      where (effective ->> 'locked')::boolean and existing.revocation_mode <> 'PERMANENT'
    returning existing.id
  )
  select coalesce(array_agg(id order by id), '{}') into copies from handed;
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
    jsonb_build_object('revoked_policies', stratum.id_list(revoked), 'copied_policies', stratum.id_list(copies)), jsonb_build_array(jsonb_build_array('subtree', t.path)));
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
--> statement-breakpoint
-- One key: what holds, and each level's part in it: locked, nearest, shadowed (below LOCKED) or overridden.
-- Of levels above the caller's reach only the winning one shows more than id and depth.
create or replace function stratum.explain_permission(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('explain_permission', actor, input);
  reach ltree := (who ->> 'path')::ltree;
  t tenants;
  effective jsonb;
  winning_depth integer;
begin
  select * into strict t from tenants where id = (input ->> 'id')::uuid;
  effective := stratum.resolved_permissions(t.path) -> (input ->> 'key');
  select nlevel(w.path) - 1 into winning_depth from tenants w where w.id = (effective ->> 'source_tenant_id')::uuid;
  return jsonb_build_object('key', input -> 'key', 'effective', effective, 'levels', (
    select coalesce(jsonb_agg(
      jsonb_build_object('tenant_id', a.id, 'depth', l.depth, 'effective', l.depth = winning_depth, 'reason', case
          when l.depth = winning_depth then case when (effective ->> 'locked')::boolean then 'locked' else 'nearest' end
          when l.depth > winning_depth then 'shadowed' else 'overridden' end)
        || case when l.depth = winning_depth or stratum.within(a.path, reach)
             then jsonb_build_object('policy_id', p.id, 'value', p.value, 'mode', p.mode, 'revocation_mode', p.revocation_mode) else '{}' end
      order by l.depth), '[]')
    from stratum.lineage(t.path) as l join tenants a on a.path = l.path
    join permission_policies p on p.tenant_id = a.id and p.key = input ->> 'key'));
end $$;
