-- Looking at config from further away: level by level, beside another tenant, and back in time.

-- A tenant and the tenants above it as they were at a moment, root first; none when it did not exist then. Moments
-- are told in milliseconds, so a change counts from the millisecond that it is told by.
create or replace function stratum.lineage_at(of_tenant uuid, at timestamptz) returns table (tenant_id uuid, depth integer)
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return query
    with recursive up as (
      (select p.tenant_id, p.parent_id, 0 as steps from tenant_places p where p.tenant_id = of_tenant and date_trunc('milliseconds', p.since) <= at order by p.since desc, p.id desc limit 1)
      union all
      select above.tenant_id, above.parent_id, up.steps + 1 from up cross join lateral (
        select p.tenant_id, p.parent_id from tenant_places p where p.tenant_id = up.parent_id and date_trunc('milliseconds', p.since) <= at order by p.since desc, p.id desc limit 1) as above
    )
    select up.tenant_id, (max(up.steps) over () - up.steps)::integer from up order by up.steps desc;
end $$;
--> statement-breakpoint
-- A tenant's config by key at a moment, by the same fold over what was kept, with the tree and the defaults of then.
create or replace function stratum.resolved_config_at(of_id uuid, at timestamptz, sealed boolean) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return (
    select stratum.config_defaults_at(at) || coalesce(jsonb_object_agg(r.key, r.entry), '{}')
    from (
      select distinct on (e.key) e.key,
        jsonb_build_object('key', e.key, 'value', e.value, 'locked', e.locked, 'sensitive', e.ciphertext is not null,
          'source_tenant_id', l.tenant_id, 'inherited', l.tenant_id <> of_id)
        || case when sealed and e.ciphertext is not null then jsonb_build_object('sealed', jsonb_build_object(
             'ciphertext', e.ciphertext, 'data_key', jsonb_build_object('id', d.id, 'master_key_id', d.master_key_id, 'wrapped', d.wrapped)))
           else '{}' end as entry
      from stratum.lineage_at(of_id, at) as l
      cross join lateral (
        select distinct on (h.key) h.key, h.value, h.ciphertext, h.data_key_id, h.locked
        from config_history h where h.tenant_id = l.tenant_id and date_trunc('milliseconds', h.changed_at) <= at order by h.key, h.id desc) as e
      left join data_keys d on d.tenant_id = l.tenant_id and d.id = e.data_key_id
      where e.value is not null or e.ciphertext is not null
      order by e.key, e.locked desc, case when e.locked then l.depth else -l.depth end
    ) as r);
end $$;
--> statement-breakpoint
-- Config of a past moment as it may be shown now: an entry of a tenant that is neither within reach nor above any more
-- shows as a secret that is not revealed, and as nobody's. Whoever a tenant was moved to never saw what held above it.
create or replace function stratum.config_in_sight(config jsonb, of_path stratum.ltree, reach stratum.ltree) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return (
    select coalesce(jsonb_object_agg(e.key, case
      when e.value ->> 'source_tenant_id' is null or exists (
        select from tenants a where a.id = (e.value ->> 'source_tenant_id')::uuid
          and (stratum.within(a.path, reach) or stratum.within(of_path, a.path))) then e.value
      else e.value - 'sealed' || '{"value": null, "sensitive": true, "source_tenant_id": null}' end), '{}')
    from jsonb_each(config) as e);
end $$;
--> statement-breakpoint
-- By key, every level on a path that sets it, root first, and why it won or did not: topmost_lock, nearest,
-- shadowed (below a lock) or overridden (from below, or by the lock). Of levels above the caller's reach only
-- the winning ones show more than id and depth, as their values are the tenant's own anyway.
create or replace function stratum.config_levels(of_path stratum.ltree, resolved jsonb, reach stratum.ltree) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return (
    select coalesce(jsonb_object_agg(k.key, k.levels), '{}') from (
      select e.key, jsonb_agg(
        jsonb_build_object('tenant_id', a.id, 'depth', l.depth, 'effective', l.depth = f.depth, 'reason', case
            when l.depth = f.depth then case when f.locked then 'topmost_lock' else 'nearest' end
            when l.depth > f.depth then 'shadowed' else 'overridden' end)
          || case when l.depth = f.depth or stratum.within(a.path, reach) then stratum.config_entry_json(e) - 'key' else '{}' end
        order by l.depth) as levels
      from stratum.lineage(of_path) as l join tenants a on a.path = l.path join config_entries e on e.tenant_id = a.id,
        lateral (
          select nlevel(w.path) - 1 as depth, (resolved -> e.key ->> 'locked')::boolean as locked
          from tenants w where w.id = (resolved -> e.key ->> 'source_tenant_id')::uuid) as f
      group by e.key
    ) as k);
end $$;
--> statement-breakpoint
-- Each key that holds, with its levels.
create or replace function stratum.get_config_inheritance(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_config_inheritance', actor, input);
  t tenants;
  resolved jsonb;
  levels jsonb;
begin
  select * into strict t from tenants where id = (input ->> 'id')::uuid;
  resolved := stratum.resolved_config(t.id, t.path, false);
  levels := stratum.config_levels(t.path, resolved, (who ->> 'path')::ltree);
  return jsonb_build_object('config',
    (select coalesce(jsonb_object_agg(e.key, e.value || jsonb_build_object('levels', coalesce(levels -> e.key, '[]'))), '{}') from jsonb_each(resolved) as e));
end $$;
--> statement-breakpoint
-- One key: what holds, and each level's part in it. A key that nobody sets has no levels.
create or replace function stratum.explain_config(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('explain_config', actor, input);
  t tenants;
  resolved jsonb;
begin
  select * into strict t from tenants where id = (input ->> 'id')::uuid;
  resolved := stratum.resolved_config(t.id, t.path, false);
  return jsonb_build_object('key', input -> 'key', 'effective', resolved -> (input ->> 'key'),
    'levels', coalesce(stratum.config_levels(t.path, resolved, (who ->> 'path')::ltree) -> (input ->> 'key'), '[]'));
end $$;
--> statement-breakpoint
-- Do two entries hold the same? Secrets are not compared by content, only by where they come from.
create or replace function stratum.config_differs(a jsonb, b jsonb) returns boolean
language sql immutable parallel safe as $$
  select a is null or b is null or a -> 'source_tenant_id' is distinct from b -> 'source_tenant_id'
    and (a -> 'value' is distinct from b -> 'value' or (a -> 'sensitive')::boolean or (b -> 'sensitive')::boolean)
$$;
--> statement-breakpoint
-- The keys in which two tenants differ.
create or replace function stratum.diff_config(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('diff_config', actor, input);
  a jsonb := (select stratum.resolved_config(t.id, t.path, false) from tenants t where t.id = (input ->> 'tenant_a')::uuid);
  b jsonb := (select stratum.resolved_config(t.id, t.path, false) from tenants t where t.id = (input ->> 'tenant_b')::uuid);
begin
  return jsonb_build_object('next', null, 'data', (
    select coalesce(jsonb_agg(jsonb_build_object('key', k.key, 'a', a -> k.key, 'b', b -> k.key, 'status',
      case when a -> k.key is null then 'only_b' when b -> k.key is null then 'only_a' else 'different' end) order by k.key), '[]')
    from (select jsonb_object_keys(a) as key union select jsonb_object_keys(b)) as k
    where stratum.config_differs(a -> k.key, b -> k.key)));
end $$;
--> statement-breakpoint
-- How a tenant's config stands to another's, as a rule its parent's: ok (from the same source), override (set
-- on the way down), missing (holds for the parent alone), conflict (set on the way down and shadowed by a lock).
-- On the way down is what the parent's own line does not hold, so that two of different lines compare too.
create or replace function stratum.compute_drift(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('compute_drift', actor, input);
  parent tenants;
  child tenants;
  above jsonb;
  below jsonb;
  levels jsonb;
begin
  select * into strict parent from tenants where id = (input ->> 'id')::uuid;
  select * into strict child from tenants where id = (input ->> 'child')::uuid;
  above := stratum.resolved_config(parent.id, parent.path, false);
  below := stratum.resolved_config(child.id, child.path, false);
  levels := stratum.config_levels(child.path, below, null);
  return jsonb_build_object('next', null, 'data', (
    select coalesce(jsonb_agg(jsonb_build_object('key', k.key, 'parent', above -> k.key, 'child', below -> k.key, 'status', case
        when below -> k.key is null then 'missing'
        when exists (
          select from jsonb_array_elements(levels -> k.key) as l join tenants t on t.id = (l.value ->> 'tenant_id')::uuid
          where l.value ->> 'reason' = 'shadowed' and not stratum.within(parent.path, t.path)) then 'conflict'
        when above -> k.key -> 'source_tenant_id' = below -> k.key -> 'source_tenant_id' then 'ok'
        else 'override' end) order by k.key), '[]')
    from (select jsonb_object_keys(above) as key union select jsonb_object_keys(below)) as k));
end $$;
--> statement-breakpoint
-- What a tenant's own entry of a key was, newest change first.
create or replace function stratum.get_config_history(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_config_history', actor, input);
  wanted integer := (input ->> 'limit')::integer;
  page jsonb;
begin
  with kept as (
    select h.id, h.changed_at, h.actor, stratum.kept_config_json(h) as new,
      lag(stratum.kept_config_json(h)) over (order by h.id) as old
    from config_history h where h.tenant_id = (input ->> 'id')::uuid and h.key = input ->> 'key'
  )
  select coalesce(jsonb_agg(jsonb_build_object('id', k.id, 'changed_at', stratum.iso(k.changed_at), 'actor', k.actor, 'old', k.old, 'new', k.new) order by k.id desc), '[]')
  into page from (
    select * from kept where kept.id < coalesce((input -> 'after' ->> 0)::bigint, 9223372036854775807) order by kept.id desc limit wanted + 1
  ) as k;
  return jsonb_build_object('data', (select coalesce(jsonb_agg(e.value - 'id' order by e.ordinality), '[]') from jsonb_array_elements(page) with ordinality as e where e.ordinality <= wanted),
    'next', case when jsonb_array_length(page) > wanted then jsonb_build_array(page -> wanted - 1 -> 'id') end);
end $$;
--> statement-breakpoint
-- What was kept of an entry, or null where it had been deleted.
create or replace function stratum.kept_config_json(h stratum.config_history) returns jsonb
language sql immutable parallel safe as $$
  select case when h.value is not null or h.ciphertext is not null then
    jsonb_build_object('value', h.value, 'locked', h.locked, 'sensitive', h.ciphertext is not null) end
$$;
