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
-- The same for the audit trail, where a changed secret must show as changed.
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
    select coalesce(jsonb_object_agg(r.key, r.entry), '{}')
    from (
      select distinct on (e.key) e.key,
        stratum.config_entry_json(e) || jsonb_build_object('source_tenant_id', a.id, 'inherited', a.id <> of_id)
        || case when sealed and e.ciphertext is not null then jsonb_build_object('sealed', jsonb_build_object(
             'ciphertext', e.ciphertext, 'data_key', jsonb_build_object('id', d.id, 'master_key_id', d.master_key_id, 'wrapped', d.wrapped)))
           else '{}' end as entry
      from stratum.lineage(of_path) as l
      join stratum.tenants a on a.path operator(stratum.=) l.path
      join stratum.config_entries e on e.tenant_id = a.id
      left join stratum.data_keys d on d.tenant_id = e.tenant_id and d.id = e.data_key_id
      order by e.key, e.locked desc, case when e.locked then l.depth else -l.depth end
    ) as r);
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
create or replace function stratum.set_config(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('set_config', actor, input);
  t tenants := stratum.lock_active_tenant(who, (input ->> 'id')::uuid, 'an active tenant');
  sealed jsonb := input -> 'sealed';
  old config_entries;
  new config_entries;
begin
  perform stratum.lock_chain(t.id);
  perform stratum.require_config_unlocked(t.path, input ->> 'key');
  select * into old from config_entries where tenant_id = t.id and key = input ->> 'key';
  if sealed is not null then
    insert into data_keys (tenant_id, id, master_key_id, wrapped)
    values (t.id, (sealed -> 'data_key' ->> 'id')::uuid, sealed -> 'data_key' ->> 'master_key_id', sealed -> 'data_key' ->> 'wrapped')
    on conflict do nothing;
  end if;
  insert into config_entries (tenant_id, key, value, ciphertext, data_key_id, locked)
  values (t.id, input ->> 'key', case when sealed is null then input -> 'value' end, sealed ->> 'ciphertext',
    (sealed -> 'data_key' ->> 'id')::uuid, (input ->> 'locked')::boolean)
  on conflict (tenant_id, key) do update set value = excluded.value, ciphertext = excluded.ciphertext,
    data_key_id = excluded.data_key_id, locked = excluded.locked, updated_at = now()
  returning * into new;
  perform stratum.record(who, t.id, 'config.set', jsonb_build_object('type', 'config', 'id', t.id, 'key', new.key),
    stratum.config_entry_audit(old), stratum.config_entry_audit(new), jsonb_build_array(jsonb_build_array('subtree', t.path)));
  return stratum.config_entry_json(new) || jsonb_build_object('source_tenant_id', t.id, 'inherited', false);
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
  perform stratum.record(who, t.id, 'config.deleted', jsonb_build_object('type', 'config', 'id', t.id, 'key', old.key),
    stratum.config_entry_audit(old), null, jsonb_build_array(jsonb_build_array('subtree', t.path)));
  return stratum.config_entry_json(old);
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
  if (input ->> 'reveal')::boolean and not stratum.has_scope(who, 'secrets:read') then
    perform stratum.fail('SCOPE_REQUIRED', '{"scope": "secrets:read"}');
  end if;
  select * into strict t from tenants where id = (input ->> 'id')::uuid;
  config := stratum.resolved_config(t.id, t.path, (input ->> 'reveal')::boolean);
  select jsonb_agg(jsonb_build_object('key', e.key, 'source_tenant_id', e.value -> 'source_tenant_id')) into revealed
  from jsonb_each(config) as e where e.value ? 'sealed';
  if revealed is not null then
    perform stratum.lock_chain(t.id);
    perform stratum.append_audit(who, t.id, 'config.revealed', stratum.resource('tenant', t.id), null, jsonb_build_object('secrets', revealed));
  end if;
  return jsonb_build_object('config', config);
end $$;
--> statement-breakpoint
-- Each key with every level that sets it, root first, and which one won. Of levels above the caller's reach
-- only the winning ones show more than id and depth, as their values are the tenant's own anyway.
create or replace function stratum.get_config_inheritance(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_config_inheritance', actor, input);
  reach ltree := (who ->> 'path')::ltree;
  t tenants;
  resolved jsonb;
  levels jsonb;
begin
  select * into strict t from tenants where id = (input ->> 'id')::uuid;
  resolved := stratum.resolved_config(t.id, t.path, false);
  select coalesce(jsonb_object_agg(k.key, k.levels), '{}') into levels from (
    select e.key, jsonb_agg(
      jsonb_build_object('tenant_id', a.id, 'depth', l.depth, 'effective', is_effective)
        || case when is_effective or stratum.within(a.path, reach) then stratum.config_entry_json(e) - 'key' else '{}' end
      order by l.depth) as levels
    from stratum.lineage(t.path) as l join tenants a on a.path = l.path join config_entries e on e.tenant_id = a.id,
      lateral (select resolved -> e.key ->> 'source_tenant_id' = a.id::text as is_effective) as f
    group by e.key
  ) as k;
  return jsonb_build_object('config',
    (select coalesce(jsonb_object_agg(e.key, e.value || jsonb_build_object('levels', levels -> e.key)), '{}') from jsonb_each(resolved) as e));
end $$;
