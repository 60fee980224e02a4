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
    config := stratum.config_in_sight(
      stratum.resolved_config_at(t.id, (input ->> 'at')::timestamptz, (input ->> 'reveal')::boolean), t.path, (who ->> 'path')::ltree);
  else
    perform stratum.fail('MOMENT_BEFORE_TENANT', jsonb_build_object('at', input -> 'at', 'created_at', stratum.iso(t.created_at)));
  end if;
  select jsonb_agg(jsonb_build_object('key', e.key, 'source_tenant_id', e.value -> 'source_tenant_id')) into revealed
  from jsonb_each(config) as e where e.value ? 'sealed';
  if revealed is not null then
    perform stratum.lock_chain(t.id);
    -- to the chain of one that was purged while this waited nothing is added
    if not exists (select from tenants where id = t.id) then perform stratum.fail('TENANT_NOT_FOUND'); end if;
    perform stratum.append_audit(who, t.id, 'config.revealed', stratum.resource('tenant', t.id), null, jsonb_build_object('secrets', revealed));
  end if;
  return jsonb_build_object('config', config);
end $$;
