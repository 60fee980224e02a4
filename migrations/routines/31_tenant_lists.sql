-- Reading the tree: lists in pages, what lies above, how many lie below.

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
