-- The tree of tenants.
--
-- `path` holds the labels from the root down to the tenant itself. Locks are taken in one order
-- everywhere: structure, tenant rows from the top down, audit chain, the rest; after each wait the
-- rows are read again.

-- What must hold of the tree whoever writes: a path is the parent's path and the own label (so no cycle
-- can be written), and an active tenant's parent is active. Checks on the table itself hold the depth
-- and the label. This sees one transaction's own work; against races stands the structure lock.
create or replace function stratum.check_tree() returns trigger
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  if exists (
    select from changed c left join tenants p on p.id = c.parent_id
    where c.path <> coalesce(p.path, ''::ltree) || text2ltree(to_hex(c.number))
       or c.status = 'active' and p.status <> 'active'
  ) or exists (
    select from changed c join tenants child on child.parent_id = c.id
    where child.path <> c.path || text2ltree(to_hex(child.number))
       or child.status = 'active' and c.status <> 'active'
  ) then
    raise exception using errcode = 'integrity_constraint_violation', message = 'the tree of tenants would be inconsistent';
  end if;
  return null;
end $$;
--> statement-breakpoint
create or replace trigger check_tree_on_insert after insert on stratum.tenants
referencing new table as changed for each statement execute function stratum.check_tree();
--> statement-breakpoint
create or replace trigger check_tree_on_update after update on stratum.tenants
referencing new table as changed for each statement execute function stratum.check_tree();
--> statement-breakpoint
create or replace function stratum.tenant_json(t stratum.tenants) returns jsonb
language plpgsql stable parallel safe set search_path = stratum, pg_temp as $$
begin
  return (
    select jsonb_build_object(
      'id', t.id, 'parent_id', t.parent_id, 'slug', t.slug, 'subdomain', stratum.subdomain(t.slug), 'name', t.name,
      'status', t.status, 'isolation_strategy', t.isolation_strategy, 'isolation_name', t.isolation_name,
      'provisioning_status', t.provisioning_status, 'region_id', t.region_id,
      'depth', stratum.nlevel(t.path) - 1,
      'ancestry_path', '/' || array_to_string(above.ids, '/'), 'ancestor_ids', to_jsonb(above.ids),
      'sort_order', t.sort_order, 'metadata', t.metadata, 'created_at', stratum.iso(t.created_at),
      'updated_at', stratum.iso(t.updated_at), 'deleted_at', stratum.iso(t.deleted_at))
    from (
      select coalesce(array_agg(a.id order by l.depth), '{}'::uuid[]) as ids
      from stratum.lineage(t.path) as l join stratum.tenants a on a.path operator(stratum.=) l.path
      where a.id <> t.id
    ) as above);
end $$;
--> statement-breakpoint
-- A tenant as who reaches `reach` may see it: above its reach, only that it is there and how deep.
create or replace function stratum.tenant_view(t stratum.tenants, reach stratum.ltree) returns jsonb
language sql stable parallel safe as $$
  select case when stratum.within(t.path, reach) then stratum.tenant_json(t)
    else jsonb_build_object('id', t.id, 'depth', stratum.nlevel(t.path) - 1) end
$$;
--> statement-breakpoint
create or replace function stratum.require_status(t stratum.tenants, allowed text[], required text) returns void
language plpgsql immutable set search_path = stratum, pg_temp as $$
begin
  if t.status <> all (allowed) then
    perform stratum.fail('TENANT_INVALID_STATE', jsonb_build_object('tenant_id', t.id, 'status', t.status, 'required', required));
  end if;
end $$;
--> statement-breakpoint
-- Judge a tenant again that was just locked: it may have left the caller's reach while this waited.
create or replace function stratum.require_active_within(who jsonb, t stratum.tenants, required text) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  if not stratum.reaches(who, t.path) then perform stratum.fail('TENANT_NOT_FOUND'); end if;
  perform stratum.require_status(t, '{active}', required);
end $$;
--> statement-breakpoint
-- A tenant locked against concurrent moves, status changes and purges, and fit to be written to.
create or replace function stratum.lock_active_tenant(who jsonb, tenant_id uuid, required text) returns stratum.tenants
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  t tenants;
begin
  select * into t from tenants where id = tenant_id for share;
  perform stratum.require_active_within(who, t, required);
  return t;
end $$;
--> statement-breakpoint
create or replace function stratum.require_depth(levels integer) returns void
language plpgsql immutable set search_path = stratum, pg_temp as $$
begin
  if levels > 20 then
    perform stratum.fail('TENANT_DEPTH_EXCEEDED', jsonb_build_object('maximum', 20, 'levels', levels));
  end if;
end $$;
--> statement-breakpoint
-- Give a tenant a slug, which is its own for ever: a token, a link or a cached host that names it by a slug it
-- had must never come to mean another.
create or replace function stratum.take_slug(wanted text, of_tenant uuid) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  insert into tenant_slugs as taken (slug, tenant_id) values (wanted, of_tenant)
  on conflict (slug) do update set tenant_id = excluded.tenant_id where taken.tenant_id = excluded.tenant_id;
  if not found then perform stratum.fail('TENANT_SLUG_TAKEN', jsonb_build_object('slug', wanted)); end if;
end $$;
--> statement-breakpoint
-- The place of a tenant that is new among its siblings: after them where they were put in order, else by age
-- as they all are.
create or replace function stratum.last_place(parent uuid) returns integer
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  last integer;
begin
  -- ordered as the index of children is, so that only its end is read
  if parent is null then
    select t.sort_order into last from tenants t where t.parent_id is null order by t.parent_id desc, t.sort_order desc limit 1;
  else
    select t.sort_order into last from tenants t where t.parent_id = parent order by t.parent_id desc, t.sort_order desc limit 1;
  end if;
  return coalesce(last + least(last, 1), 0);
end $$;
--> statement-breakpoint
-- Write one new tenant under a parent that the caller has locked, or a root.
create or replace function stratum.insert_tenant(who jsonb, parent stratum.tenants, spec jsonb) returns stratum.tenants
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  created tenants;
  new_id uuid := stratum.uuid_v7();
  strategy text := spec ->> 'isolation_strategy';
  new_number bigint := nextval('stratum.tenants_number_seq');
begin
  perform stratum.require_provisioning(strategy);
  perform stratum.require_depth(coalesce(nlevel(parent.path), 0) + 1);
  perform stratum.require_size('metadata', spec -> 'metadata', 16384);
  perform stratum.take_slug(spec ->> 'slug', new_id);
  insert into tenants (id, number, parent_id, path, slug, name, isolation_strategy, isolation_name, provisioning_status, metadata, sort_order)
  values (new_id, new_number, parent.id, coalesce(parent.path, ''::ltree) || text2ltree(to_hex(new_number)),
    spec ->> 'slug', spec ->> 'name', strategy, stratum.isolation_name_for(strategy, spec ->> 'slug', new_id),
    case strategy when 'SHARED_RLS' then 'ready' else 'pending' end, spec -> 'metadata', stratum.last_place(parent.id))
  returning * into created;
  insert into audit_heads (tenant_id) values (created.id);
  insert into tenant_places (tenant_id, parent_id, since) values (created.id, created.parent_id, created.created_at);
  perform stratum.record(who, created.id, 'tenant.created', stratum.resource('tenant', created.id), null, stratum.tenant_json(created),
    jsonb_build_array(jsonb_build_array('host', created.slug)));
  if strategy <> 'SHARED_RLS' then perform stratum.enqueue('provision_tenant', created.id, '{}'); end if;
  return created;
end $$;
--> statement-breakpoint
create or replace function stratum.create_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('create_tenant', actor, input, 'shared');
  parent tenants;
begin
  if input ->> 'parent_id' is not null then
    parent := stratum.lock_active_tenant(who, (input ->> 'parent_id')::uuid, 'an active parent');
  end if;
  return stratum.tenant_json(stratum.insert_tenant(who, parent, input));
end $$;
--> statement-breakpoint
-- All or nothing. A parent may be made by the same batch, anywhere in it: each round makes those whose
-- parents are there, until all are made or a round makes none.
create or replace function stratum.batch_create_tenants(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('batch_create_tenants', actor, input, 'shared');
  specs jsonb := input -> 'tenants';
  made jsonb := '{}';
  made_before integer;
  parent_slug text;
  parent tenants;
  spec jsonb;
begin
  perform from tenants where id in (select (s.value ->> 'parent_id')::uuid from jsonb_array_elements(specs) as s) order by path for share;
  -- Two batches that take the same slugs in different order would wait for each other in the index.
  perform pg_advisory_xact_lock(wanted.slug_key) from (
    select distinct hashtextextended('stratum.slug.' || (s.value ->> 'slug'), 0) as slug_key from jsonb_array_elements(specs) as s order by 1) as wanted;
  loop
    made_before := (select count(*) from jsonb_object_keys(made));
    for spec in select value from jsonb_array_elements(specs) loop
      parent_slug := spec ->> 'parent_slug';
      continue when made ? (spec ->> 'slug') or parent_slug is not null and not made ? parent_slug;
      parent := null;
      if coalesce(parent_slug, spec ->> 'parent_id') is not null then
        parent := stratum.lock_active_tenant(who, coalesce(made -> parent_slug ->> 'id', spec ->> 'parent_id')::uuid, 'an active parent');
      end if;
      made := made || jsonb_build_object(spec ->> 'slug', stratum.tenant_json(stratum.insert_tenant(who, parent, spec)));
    end loop;
    exit when (select count(*) from jsonb_object_keys(made)) in (made_before, jsonb_array_length(specs));
  end loop;
  for spec in select value from jsonb_array_elements(specs) where not made ? (value ->> 'slug') loop
    perform stratum.fail('TENANT_PARENT_NOT_IN_BATCH', jsonb_build_object('slug', spec -> 'slug', 'parent_slug', spec -> 'parent_slug'));
  end loop;
  return jsonb_build_object('tenants', (select jsonb_agg(made -> (s.value ->> 'slug') order by s.ordinality) from jsonb_array_elements(specs) with ordinality as s));
end $$;
--> statement-breakpoint
create or replace function stratum.resource(type text, id uuid) returns jsonb
language sql immutable parallel safe as $$ select jsonb_build_object('type', type, 'id', id) $$;
--> statement-breakpoint
create or replace function stratum.get_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_tenant', actor, input);
  t tenants;
begin
  select * into strict t from tenants where id = (input ->> 'id')::uuid;
  if t.status = 'archived' and not (input ->> 'include_archived')::boolean then perform stratum.fail('TENANT_ARCHIVED'); end if;
  return stratum.tenant_json(t);
end $$;
--> statement-breakpoint
create or replace function stratum.get_tenant_by_slug(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_tenant_by_slug', actor, input);
  t tenants;
begin
  select * into t from tenants where slug = input ->> 'slug';
  if not found or not stratum.within(t.path, (who ->> 'path')::ltree) then perform stratum.fail('TENANT_NOT_FOUND'); end if;
  return stratum.tenant_json(t);
end $$;
--> statement-breakpoint
create or replace function stratum.update_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('update_tenant', actor, input);
  old tenants;
  new tenants;
begin
  select * into old from tenants where id = (input ->> 'id')::uuid for no key update;
  perform stratum.require_active_within(who, old, 'an active tenant');
  perform stratum.require_size('metadata', input -> 'metadata', 16384);
  perform stratum.lock_chain(old.id);
  if input ->> 'slug' is not null then perform stratum.take_slug(input ->> 'slug', old.id); end if;
  update tenants set slug = coalesce(input ->> 'slug', slug), name = coalesce(input ->> 'name', name),
    metadata = coalesce(input -> 'metadata', metadata), updated_at = now()
  where id = old.id returning * into new;
  perform stratum.record(who, new.id, 'tenant.updated', stratum.resource('tenant', new.id), stratum.tenant_json(old), stratum.tenant_json(new),
    jsonb_build_array(jsonb_build_array('subtree', new.path))
      || case when old.slug = new.slug then '[]' else jsonb_build_array(jsonb_build_array('host', old.slug), jsonb_build_array('host', new.slug)) end);
  return stratum.tenant_json(new);
end $$;
--> statement-breakpoint
create or replace function stratum.move_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('move_tenant', actor, input, 'exclusive');
  old tenants;
  new tenants;
  parent tenants;
begin
  if input ->> 'new_parent_id' is not null then
    select * into strict parent from tenants where id = (input ->> 'new_parent_id')::uuid for share;
  end if;
  select * into strict old from tenants where id = (input ->> 'id')::uuid for no key update;
  if parent.id is not distinct from old.parent_id then return stratum.tenant_json(old); end if;
  if stratum.within(parent.path, old.path) then perform stratum.fail('TENANT_CYCLE_DETECTED'); end if;
  if old.status = 'active' and parent.id is not null then
    perform stratum.require_status(parent, '{active}', 'an active parent');
  end if;
  perform stratum.require_depth((
    select max(nlevel(t.path)) - nlevel(old.path) + 1 + coalesce(nlevel(parent.path), 0)
    from tenants t where t.path >= old.path and t.path < stratum.subtree_end(old.path)));
  perform stratum.lock_chain(old.id);
  update tenants t set path = coalesce(parent.path, ''::ltree) || subpath(t.path, nlevel(old.path) - 1),
    parent_id = case when t.id = old.id then parent.id else t.parent_id end,
    sort_order = case when t.id = old.id then stratum.last_place(parent.id) else t.sort_order end,
    updated_at = case when t.id = old.id then now() else t.updated_at end
  where t.path >= old.path and t.path < stratum.subtree_end(old.path);
  select * into strict new from tenants where id = old.id;
  insert into tenant_places (tenant_id, parent_id) values (new.id, new.parent_id);
  perform stratum.record(who, new.id, 'tenant.moved', stratum.resource('tenant', new.id),
    jsonb_build_object('parent_id', old.parent_id),
    jsonb_build_object('parent_id', new.parent_id, 'moved', stratum.id_list(array(
      select t.id from tenants t where t.path >= new.path and t.path < stratum.subtree_end(new.path) order by t.path))),
    jsonb_build_array(jsonb_build_array('subtree', old.path), jsonb_build_array('subtree', new.path))
      -- what an issuer calls a tenant counts within the issuer's reach alone, so its names mean others after a move; and of
      -- several issuers of one name another may be the one that counts
      || (select coalesce(jsonb_agg(distinct jsonb_build_array('issuer', named.issuer)), '[]') from tenants t
          cross join lateral (select e.issuer from tenant_external_ids e where e.tenant_id = t.id
            union select i.issuer from issuers i where i.tenant_id = t.id) as named
          where t.path >= new.path and t.path < stratum.subtree_end(new.path)));
  return stratum.tenant_json(new);
end $$;
--> statement-breakpoint
-- Put a tenant at a place among its siblings, counted from 0.
create or replace function stratum.reorder_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('reorder_tenant', actor, input, 'exclusive');
  t tenants;
  siblings uuid[];
  place integer := (input ->> 'position')::integer;
  previous integer;
begin
  select * into strict t from tenants where id = (input ->> 'id')::uuid;
  siblings := array(select s.id from tenants s where s.parent_id is not distinct from t.parent_id order by s.sort_order, s.id);
  previous := array_position(siblings, t.id) - 1;
  siblings := array_remove(siblings, t.id);
  place := least(place, cardinality(siblings));
  siblings := siblings[:place] || t.id || siblings[place + 1:];
  perform stratum.lock_chain(t.id);
  update tenants s set sort_order = o.place - 1, updated_at = case when s.id = t.id then now() else s.updated_at end
  from unnest(siblings) with ordinality as o (id, place) where s.id = o.id and (s.sort_order <> o.place - 1 or s.id = t.id)
    and s.parent_id is not distinct from t.parent_id;
  perform stratum.record(who, t.id, 'tenant.reordered', stratum.resource('tenant', t.id), jsonb_build_object('position', previous),
    jsonb_build_object('position', array_position(siblings, t.id) - 1),
    -- places of siblings change too: under a parent all of them are its subtree, at the top they are everything
    coalesce((select jsonb_build_array(jsonb_build_array('subtree', p.path)) from tenants p where p.id = t.parent_id), '[["installation", ""]]'));
  return (select stratum.tenant_json(s) from tenants s where s.id = t.id);
end $$;
