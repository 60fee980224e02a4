-- Config flows down the tree. What holds for a tenant is a fold from the root: the topmost lock of a key
-- wins, else the nearest setter. Stored entries are never rewritten by a lock or a move, so resolution is
-- the authority and the refusal to write below a lock a courtesy to the writer.
--
-- A sensitive value arrives encrypted, with the wrapped data key that made it, and leaves the same way.

-- What one level contributes, as audit and lists may show it: a secret shows only that it is one.
create or replace function stratum.config_entry_json(e stratum.config_entries) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_build_object('key', e.key, 'value', e.value, 'locked', e.locked, 'sensitive', e.ciphertext is not null)
$$;
--> statement-breakpoint
-- The same for the audit trail, where a secret shows as being there.
create or replace function stratum.config_entry_audit(e stratum.config_entries) returns jsonb
language sql immutable parallel safe as $$
  select case when e.key is not null then
    stratum.config_entry_json(e) || case when e.ciphertext is null then '{}' else '{"value": "[redacted]"}'::jsonb end end
$$;
--> statement-breakpoint
-- A tenant's config by key. With `sealed`, secrets carry their ciphertext and wrapped data key for the
-- process to open.
create or replace function stratum.resolved_config(of_id uuid, of_path stratum.ltree, sealed boolean) returns jsonb
language plpgsql stable parallel safe set search_path = stratum, pg_temp as $$
begin
  return (
    select stratum.config_defaults() || coalesce(jsonb_object_agg(winner.key,
      stratum.config_entry_json(winner.entry)
      || jsonb_build_object('source_tenant_id', (winner.entry).tenant_id, 'inherited', (winner.entry).tenant_id <> of_id)
      || case when sealed and (winner.entry).ciphertext is not null then jsonb_build_object('sealed', jsonb_build_object(
           'ciphertext', (winner.entry).ciphertext, 'data_key', (
             select jsonb_build_object('id', d.id, 'master_key_id', d.master_key_id, 'wrapped', d.wrapped)
             from stratum.data_keys d where d.tenant_id = (winner.entry).tenant_id and d.id = (winner.entry).data_key_id)))
         else '{}' end), '{}')
    from (
      -- Rows first: made into JSON are only those that win.
      select distinct on (e.key) e.key, e as entry
      from stratum.lineage(of_path) as l
      join stratum.tenants a on a.path operator(stratum.=) l.path
      join stratum.config_entries e on e.tenant_id = a.id
      order by e.key, e.locked desc, case when e.locked then l.depth else -l.depth end
    ) as winner);
end $$;
--> statement-breakpoint
-- Fail when a tenant above holds the key locked. The answer names the topmost lock, which is the one that
-- must go; of tenants above the caller's reach it tells id and depth, as everywhere.
create or replace function stratum.require_config_unlocked(of_path stratum.ltree, entry_key text) returns void
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  holder record;
begin
  select a.id, l.depth into holder
  from stratum.lineage(of_path) as l join tenants a on a.path = l.path join config_entries e on e.tenant_id = a.id
  where a.path <> of_path and e.key = entry_key and e.locked order by l.depth limit 1;
  if found then
    perform stratum.fail('CONFIG_LOCKED', jsonb_build_object('key', entry_key, 'source_tenant_id', holder.id, 'source_depth', holder.depth));
  end if;
end $$;
--> statement-breakpoint
-- Keep what a key became; under its audit chain's lock, so that the rows of a key stand in the order of time.
create or replace function stratum.keep_config(who jsonb, e stratum.config_entries, deleted boolean) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  insert into config_history (tenant_id, key, value, ciphertext, data_key_id, locked, actor)
  values (e.tenant_id, e.key, case when not deleted then e.value end, case when not deleted then e.ciphertext end,
    case when not deleted then e.data_key_id end, e.locked and not deleted, stratum.principal_json(who));
end $$;
--> statement-breakpoint
-- Bound what one tenant can make everybody read: its config stands in the context of all below it.
create or replace function stratum.require_config_room(of_tenant uuid) returns void
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  if (select count(*) > 1000 or sum(coalesce(octet_length(e.value::text), octet_length(e.ciphertext))) > 1048576
      from config_entries e where e.tenant_id = of_tenant) then
    perform stratum.fail('CONFIG_FULL', '{"maximum_entries": 1000, "maximum_bytes": 1048576}');
  end if;
end $$;
--> statement-breakpoint
-- Write one entry of a tenant that is locked, with its audit chain.
create or replace function stratum.write_config(who jsonb, t stratum.tenants, entry jsonb) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  sealed jsonb := entry -> 'sealed';
  old config_entries;
  new config_entries;
begin
  perform stratum.require_config_unlocked(t.path, entry ->> 'key');
  perform stratum.require_size('value', entry -> 'value', 65536);
  select * into old from config_entries where tenant_id = t.id and key = entry ->> 'key';
  if sealed is not null then
    insert into data_keys (tenant_id, id, master_key_id, wrapped)
    values (t.id, (sealed -> 'data_key' ->> 'id')::uuid, sealed -> 'data_key' ->> 'master_key_id', sealed -> 'data_key' ->> 'wrapped')
    on conflict do nothing;
  end if;
  insert into config_entries (tenant_id, key, value, ciphertext, data_key_id, locked)
  values (t.id, entry ->> 'key', case when sealed is null then entry -> 'value' end, sealed ->> 'ciphertext',
    (sealed -> 'data_key' ->> 'id')::uuid, (entry ->> 'locked')::boolean)
  on conflict (tenant_id, key) do update set value = excluded.value, ciphertext = excluded.ciphertext,
    data_key_id = excluded.data_key_id, locked = excluded.locked, updated_at = now()
  returning * into new;
  perform stratum.require_config_room(t.id);
  perform stratum.keep_config(who, new, false);
  perform stratum.record(who, t.id, 'config.set', jsonb_build_object('type', 'config', 'id', t.id, 'key', new.key),
    stratum.config_entry_audit(old), stratum.config_entry_audit(new), jsonb_build_array(jsonb_build_array('subtree', t.path)));
  return stratum.config_entry_json(new) || jsonb_build_object('source_tenant_id', t.id, 'inherited', false);
end $$;
--> statement-breakpoint
create or replace function stratum.set_config(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('set_config', actor, input);
  t tenants := stratum.lock_active_tenant(who, (input ->> 'id')::uuid, 'an active tenant');
begin
  perform stratum.require_definitions(input);
  perform stratum.lock_chain(t.id);
  return stratum.write_config(who, t, input);
end $$;
--> statement-breakpoint
-- Several entries of one tenant. Each that is refused says why and leaves the others, unless all or none was asked for.
create or replace function stratum.batch_set_config(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('batch_set_config', actor, input);
  t tenants := stratum.lock_active_tenant(who, (input ->> 'id')::uuid, 'an active tenant');
  entry jsonb;
  results jsonb[] := '{}';
  failed integer := 0;
  facts text;
begin
  perform stratum.require_definitions(input);
  perform stratum.lock_chain(t.id);
  for entry in select value from jsonb_array_elements(input -> 'entries') loop
    begin
      results := results || jsonb_build_object('key', entry -> 'key', 'entry', stratum.write_config(who, t, entry));
    exception when sqlstate 'STRAT' then
      if (input ->> 'atomic')::boolean then raise; end if;
      get stacked diagnostics facts = pg_exception_detail;
      results := results || jsonb_build_object('key', entry -> 'key', 'error', jsonb_build_object('code', sqlerrm, 'details', facts::jsonb));
      failed := failed + 1;
    end;
  end loop;
  return jsonb_build_object('results', to_jsonb(results), 'succeeded', cardinality(results) - failed, 'failed', failed);
end $$;
--> statement-breakpoint
create or replace function stratum.delete_config(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('delete_config', actor, input);
  t tenants := stratum.lock_active_tenant(who, (input ->> 'id')::uuid, 'an active tenant');
  old config_entries;
begin
  perform stratum.lock_chain(t.id);
  delete from config_entries where tenant_id = t.id and key = input ->> 'key' returning * into old;
  if not found then perform stratum.fail('CONFIG_NOT_FOUND', jsonb_build_object('key', input -> 'key')); end if;
  perform stratum.keep_config(who, old, true);
  perform stratum.record(who, t.id, 'config.deleted', jsonb_build_object('type', 'config', 'id', t.id, 'key', old.key),
    stratum.config_entry_audit(old), null, jsonb_build_array(jsonb_build_array('subtree', t.path)));
  return stratum.config_entry_json(old);
end $$;
--> statement-breakpoint
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
-- A tenant's config by key at a moment, by the same fold over what was kept, with the tree as it was then.
create or replace function stratum.resolved_config_at(of_id uuid, at timestamptz, sealed boolean) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return (
    select stratum.config_defaults() || coalesce(jsonb_object_agg(r.key, r.entry), '{}')
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
-- With `reveal` the answer carries sealed secrets, and the revealing stands in the audit trail.
create or replace function stratum.resolve_config(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('resolve_config', actor, input);
  t tenants;
  config jsonb;
  revealed jsonb;
begin
  select * into strict t from tenants where id = (input ->> 'id')::uuid;
  if input ->> 'at' is null then
    config := stratum.resolved_config(t.id, t.path, (input ->> 'reveal')::boolean);
  elsif exists (select from stratum.lineage_at(t.id, (input ->> 'at')::timestamptz)) then
    config := stratum.resolved_config_at(t.id, (input ->> 'at')::timestamptz, (input ->> 'reveal')::boolean);
  else
    perform stratum.fail('MOMENT_BEFORE_TENANT', jsonb_build_object('at', input -> 'at', 'created_at', stratum.iso(t.created_at)));
  end if;
  select jsonb_agg(jsonb_build_object('key', e.key, 'source_tenant_id', e.value -> 'source_tenant_id')) into revealed
  from jsonb_each(config) as e where e.value ? 'sealed';
  if revealed is not null then
    perform stratum.lock_chain(t.id);
    perform stratum.append_audit(who, t.id, 'config.revealed', stratum.resource('tenant', t.id), null, jsonb_build_object('secrets', revealed));
  end if;
  return jsonb_build_object('config', config);
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
