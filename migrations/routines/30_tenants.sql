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
  new_number bigint := nextval('stratum.tenants_number_seq');
begin
  if spec ->> 'isolation_strategy' <> 'SHARED_RLS' then
    perform stratum.fail('PROVISIONING_UNAVAILABLE', jsonb_build_object('isolation_strategy', spec -> 'isolation_strategy'));
  end if;
  perform stratum.require_depth(coalesce(nlevel(parent.path), 0) + 1);
  perform stratum.require_size('metadata', spec -> 'metadata', 16384);
  perform stratum.take_slug(spec ->> 'slug', new_id);
  insert into tenants (id, number, parent_id, path, slug, name, isolation_strategy, metadata, sort_order)
  values (new_id, new_number, parent.id, coalesce(parent.path, ''::ltree) || text2ltree(to_hex(new_number)),
    spec ->> 'slug', spec ->> 'name', spec ->> 'isolation_strategy', spec -> 'metadata', stratum.last_place(parent.id))
  returning * into created;
  insert into audit_heads (tenant_id) values (created.id);
  insert into tenant_places (tenant_id, parent_id, since) values (created.id, created.parent_id, created.created_at);
  perform stratum.record(who, created.id, 'tenant.created', stratum.resource('tenant', created.id), null, stratum.tenant_json(created),
    jsonb_build_array(jsonb_build_array('host', created.slug)));
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
-- The statuses that a list shows: one asked for, or all but archived unless those are wanted too.
create or replace function stratum.listed_statuses(input jsonb) returns text[]
language sql immutable parallel safe as $$
  select case
    when input ->> 'status' is not null then array[input ->> 'status']
    when (input ->> 'include_archived')::boolean then '{active,suspended,archived}'
    else '{active,suspended}'
  end
$$;
--> statement-breakpoint
-- Does a list that asks for these statuses and this pattern show a tenant?
create or replace function stratum.is_listed(t stratum.tenants, statuses text[], pattern text) returns boolean
language sql immutable parallel safe as $$
  select t.status = any (statuses) and (pattern = '%%' or t.name ilike pattern or t.slug ilike pattern)
$$;
--> statement-breakpoint
-- A page in tree order, each parent before its children, as { data, next }. `next` is the place to go on
-- from. Bounds are never null, so that the plan is one range of the index whatever is asked.
create or replace function stratum.tree_page(top stratum.ltree, below_top boolean, roots_only boolean, input jsonb) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  after ltree;
  first_path ltree := coalesce(top, ''::ltree);
  -- labels are hexadecimal, so every path sorts before 'z'
  end_path ltree := coalesce(stratum.subtree_end(top), 'z'::ltree);
  wanted integer := (input ->> 'limit')::integer;
  statuses text[] := stratum.listed_statuses(input);
  deepest integer := coalesce(nlevel(top), 0) + coalesce((input ->> 'max_depth')::integer, 20);
  -- what is searched for, with the signs that LIKE reads made plain
  pattern text := '%' || regexp_replace(coalesce(input ->> 'q', ''), '([\\%_])', '\\\1', 'g') || '%';
  rows tenants[];
begin
  if input -> 'after' is not null then
    select path into after from tenants where id = (input -> 'after' ->> 0)::uuid;
    if not found or after < first_path or after >= end_path then perform stratum.fail('INVALID_CURSOR'); end if;
  elsif below_top then
    after := top;
  end if;
  if roots_only then
    -- by the index of roots, so that the subtrees between are not read, however large
    rows := array(
      select t from tenants t
      where t.parent_id is null and t.path >= coalesce(after, first_path) and t.path < end_path and t.path <> coalesce(after, ''::ltree)
        and stratum.is_listed(t, statuses, pattern)
      order by t.path limit wanted + 1);
  else
    rows := array(
      select t from tenants t
      where t.path >= coalesce(after, first_path) and t.path < end_path and t.path <> coalesce(after, ''::ltree)
        and nlevel(t.path) <= deepest and stratum.is_listed(t, statuses, pattern)
      order by t.path limit wanted + 1);
  end if;
  return jsonb_build_object(
    'data', (select coalesce(jsonb_agg(stratum.tenant_json(r) order by r.path), '[]') from unnest(rows[:wanted]) as r),
    'next', case when cardinality(rows) > wanted then jsonb_build_array(rows[wanted].id) end);
end $$;
--> statement-breakpoint
create or replace function stratum.list_tenants(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('list_tenants', actor, input);
begin
  return stratum.tree_page((who ->> 'path')::ltree, false, (input ->> 'root')::boolean, input);
end $$;
--> statement-breakpoint
create or replace function stratum.get_descendants(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_descendants', actor, input);
begin
  return stratum.tree_page((select path from tenants where id = (input ->> 'id')::uuid), true, false, input);
end $$;
--> statement-breakpoint
create or replace function stratum.get_children(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_children', actor, input);
  wanted integer := (input ->> 'limit')::integer;
  -- before every place when no page went before
  after_order integer := coalesce((input -> 'after' ->> 0)::integer, -2147483648);
  after_id uuid := coalesce((input -> 'after' ->> 1)::uuid, '00000000-0000-0000-0000-000000000000');
  rows tenants[];
begin
  select coalesce(array_agg(page.t), '{}') into rows from (
    select t from tenants t
    where t.parent_id = (input ->> 'id')::uuid and (t.sort_order, t.id) > (after_order, after_id)
      and t.status = any (stratum.listed_statuses(input))
    order by t.sort_order, t.id limit wanted + 1
  ) as page;
  return jsonb_build_object(
    'data', (select coalesce(jsonb_agg(stratum.tenant_json(r) order by r.sort_order, r.id), '[]') from unnest(rows[:wanted]) as r),
    'next', case when cardinality(rows) > wanted then jsonb_build_array(rows[wanted].sort_order, rows[wanted].id) end);
end $$;
--> statement-breakpoint
-- A tenant's ancestors as a list, root first; those above the caller's reach show only id and depth.
create or replace function stratum.ancestors_json(of_path stratum.ltree, reach stratum.ltree) returns jsonb
language plpgsql stable parallel safe set search_path = stratum, pg_temp as $$
begin
  return (
    select coalesce(jsonb_agg(stratum.tenant_view(a, reach) order by l.depth), '[]')
    from stratum.lineage(of_path) as l join stratum.tenants a on a.path operator(stratum.=) l.path
    where a.path operator(stratum.<>) of_path);
end $$;
--> statement-breakpoint
create or replace function stratum.get_ancestors(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_ancestors', actor, input);
begin
  return jsonb_build_object('next', null, 'data',
    (select stratum.ancestors_json(t.path, (who ->> 'path')::ltree) from tenants t where t.id = (input ->> 'id')::uuid));
end $$;
--> statement-breakpoint
create or replace function stratum.get_root(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_root', actor, input);
begin
  return (
    select stratum.tenant_view(root, (who ->> 'path')::ltree)
    from tenants t join tenants root on root.path = subpath(t.path, 0, 1) where t.id = (input ->> 'id')::uuid);
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
    jsonb_build_array(jsonb_build_array('subtree', old.path), jsonb_build_array('subtree', new.path)));
  return stratum.tenant_json(new);
end $$;
--> statement-breakpoint
-- Give an active tenant and, if asked to, all active ones below it another status. Those below remember the
-- top, so that resuming the top resumes exactly them; one that was suspended earlier stays as it is.
create or replace function stratum.deactivate(t stratum.tenants, target text) returns uuid[]
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  changed uuid[];
begin
  with changing as (
    update tenants d set status = target, updated_at = now(), deleted_at = case when target = 'archived' then now() end,
      suspended_with = case when d.id <> t.id and target = 'suspended' then t.id end,
      archived_with = case when d.id <> t.id and target = 'archived' then t.id end
    where d.path >= t.path and d.path < stratum.subtree_end(t.path) and (d.status = 'active' or d.id = t.id)
    returning d.id
  )
  select array_agg(id order by id) into changed from changing;
  return changed;
end $$;
--> statement-breakpoint
-- Make a tenant active, and then from the top down those that remember it, as far as their parents are active and
-- the caller reaches them: one may have moved elsewhere since. What stays inactive forgets it, so that it does not
-- come back with a later resume, after a suspension it was no part of.
create or replace function stratum.reactivate(who jsonb, t stratum.tenants) returns uuid[]
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  changed uuid[] := array[t.id];
  level uuid[];
begin
  update tenants set status = 'active', updated_at = now(), deleted_at = null, suspended_with = null, archived_with = null where id = t.id;
  loop
    level := array(
      select c.id from tenants c left join tenants p on p.id = c.parent_id -- one may be a root by now
      where (c.suspended_with = t.id or c.archived_with = t.id) and coalesce(p.status, 'active') = 'active' and stratum.reaches(who, c.path)
      order by c.path for no key update of c);
    exit when level = '{}';
    update tenants set status = 'active', updated_at = now(), deleted_at = null, suspended_with = null, archived_with = null where id = any (level);
    changed := changed || level;
  end loop;
  update tenants set suspended_with = null, archived_with = null where suspended_with = t.id or archived_with = t.id;
  return changed;
end $$;
--> statement-breakpoint
-- Suspend, resume and archive are one change of status; which states allow it and what follows differ.
create or replace function stratum.change_status(who jsonb, input jsonb, target text, allowed text[], action text) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  parent tenants;
  old tenants;
  new tenants;
  changed uuid[];
begin
  select p.* into parent from tenants p where p.id = (select t.parent_id from tenants t where t.id = (input ->> 'id')::uuid) for share;
  select * into strict old from tenants where id = (input ->> 'id')::uuid for no key update;
  perform stratum.require_status(old, allowed, array_to_string(allowed, ' or '));
  if target = 'active' then
    if parent.id is not null then perform stratum.require_status(parent, '{active}', 'an active parent'); end if;
  elsif not coalesce((input ->> 'cascade')::boolean, false)
    and exists (select from tenants child where child.parent_id = old.id and child.status = 'active') then
    perform stratum.fail('TENANT_HAS_CHILDREN');
  end if;
  perform stratum.lock_chain(old.id);
  changed := case when target = 'active' then stratum.reactivate(who, old) else stratum.deactivate(old, target) end;
  select * into strict new from tenants where id = old.id;
  perform stratum.record(who, new.id, action, stratum.resource('tenant', new.id),
    jsonb_build_object('status', old.status), jsonb_build_object('status', new.status, 'changed', stratum.id_list(changed)),
    -- one that remembers the top may have moved elsewhere since
    (select jsonb_agg(jsonb_build_array('subtree', t.path)) from tenants t
     where t.id = new.id or t.id = any (changed) and not stratum.within(t.path, new.path)));
  return stratum.tenant_json(new);
end $$;
--> statement-breakpoint
-- What changes a whole subtree has the structure to itself.
create or replace function stratum.structure_for(input jsonb) returns text
language sql immutable parallel safe as $$ select case when (input ->> 'cascade')::boolean then 'exclusive' else 'shared' end $$;
--> statement-breakpoint
create or replace function stratum.suspend_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
begin
  return stratum.change_status(stratum.authorize('suspend_tenant', actor, input, stratum.structure_for(input)), input,
    'suspended', '{active}', 'tenant.suspended');
end $$;
--> statement-breakpoint
create or replace function stratum.resume_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
begin
  return stratum.change_status(stratum.authorize('resume_tenant', actor, input, 'exclusive'), input,
    'active', '{suspended,archived}', 'tenant.resumed');
end $$;
--> statement-breakpoint
create or replace function stratum.archive_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
begin
  return stratum.change_status(stratum.authorize('archive_tenant', actor, input, stratum.structure_for(input)), input,
    'archived', '{active,suspended}', 'tenant.archived');
end $$;
--> statement-breakpoint
-- DELETE /tenants/:id is to archive it.
create or replace function stratum.delete_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
begin
  return stratum.change_status(stratum.authorize('delete_tenant', actor, input, stratum.structure_for(input)), input,
    'archived', '{active,suspended}', 'tenant.archived');
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
--> statement-breakpoint
-- How many tenants lie below, of which status.
create or replace function stratum.get_tenant_counts(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_tenant_counts', actor, input);
begin
  return (
    select jsonb_build_object(
      'children', count(*) filter (where d.parent_id = t.id), 'descendants', count(d.id),
      'by_status', jsonb_build_object('active', count(*) filter (where d.status = 'active'),
        'suspended', count(*) filter (where d.status = 'suspended'), 'archived', count(*) filter (where d.status = 'archived')))
    from tenants t left join tenants d on d.path > t.path and d.path < stratum.subtree_end(t.path)
    where t.id = (input ->> 'id')::uuid group by t.id);
end $$;
