-- Typed config keys. A definition is JSON Schema, which SQL does not read: the process checks a value, and the
-- write carries the version of the definitions it was checked against. Writers share a lock that whoever changes
-- the definitions has alone, so no value slips in between that was checked against older ones.

create or replace function stratum.lock_definitions(mode text) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  case mode
    when 'shared' then lock table definitions_lock in share mode;
    when 'exclusive' then lock table definitions_lock in exclusive mode;
  end case;
end $$;
--> statement-breakpoint
-- Refuse a write that was checked against other definitions than there are.
create or replace function stratum.require_definitions(input jsonb) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  if input ->> 'definitions_version' is null then return; end if;
  perform stratum.lock_definitions('shared');
  if (select i.definitions_version from installation i) <> (input ->> 'definitions_version')::bigint then
    perform stratum.fail('CONFIG_DEFINITIONS_CHANGED');
  end if;
end $$;
--> statement-breakpoint
create or replace function stratum.config_definition_json(d stratum.config_definitions) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_build_object('key', d.key, 'schema', d.schema, 'default', d.default_value, 'description', d.description, 'sensitive', d.sensitive)
$$;
--> statement-breakpoint
-- For the process that checks values: all definitions and their version. Any known caller may ask.
create or replace function stratum.read_config_definitions(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.principal(actor);
begin
  return (select jsonb_build_object('version', i.definitions_version, 'strict', i.strict_config,
    'definitions', (select coalesce(jsonb_agg(stratum.config_definition_json(d) order by d.key), '[]') from config_definitions d)) from installation i);
end $$;
--> statement-breakpoint
create or replace function stratum.list_config_definitions(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('list_config_definitions', actor, input);
begin
  return jsonb_build_object('next', null, 'data', (select coalesce(jsonb_agg(stratum.config_definition_json(d) order by d.key), '[]') from config_definitions d));
end $$;
--> statement-breakpoint
-- The values that tenants hold for some keys, for new definitions to be checked against, in pages of 8 MiB: `next` is where
-- another begins. With the last page comes the digest of what they stand at, taken before the first, so that who has not read
-- all of them has none. A value is told once a page. Secrets are left out: they are checked when next written.
create or replace function stratum.read_stored_config(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('put_config_definitions', actor, input);
  digest text := coalesce(input -> 'after' ->> 0, stratum.stored_config_digest(input -> 'keys'));
  keys text[] := array(select jsonb_array_elements_text(input -> 'keys'));
  after_tenant uuid := coalesce((input -> 'after' ->> 1)::uuid, '00000000-0000-0000-0000-000000000000');
  after_key text := coalesce(input -> 'after' ->> 2, '');
  room integer := 8388608;
  entry config_entries;
  page config_entries[] := '{}';
  next jsonb;
begin
  for entry in
    select e.* from config_entries e
    where e.value is not null and e.key = any (keys) and (e.tenant_id, e.key) > (after_tenant, after_key)
    -- no page holds as many
    order by e.tenant_id, e.key limit 65536
  loop
    -- what is around the value, too
    room := room - octet_length(entry.value::text) - 128;
    if room < 0 then
      next := jsonb_build_array(digest, page[cardinality(page)].tenant_id, page[cardinality(page)].key);
      exit;
    end if;
    page := page || entry;
  end loop;
  return jsonb_build_object('next', next, 'digest', case when next is null then digest end, 'values', (
    select coalesce(jsonb_agg(jsonb_build_object('key', v.key, 'value', v.value, 'tenant_id', v.tenant_id)), '[]') from (
      select distinct on (p.key, p.value) p.key, p.value, p.tenant_id from unnest(page) as p order by p.key, p.value, p.tenant_id) as v));
end $$;
--> statement-breakpoint
-- Stands for the state of some keys in all tenants: for which rows of the history there are, as a row never changes and
-- its id never comes back. Not for how many and the newest: a purge takes some, and a late writer brings older ones.
create or replace function stratum.stored_config_digest(keys jsonb) returns text
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  return (select count(*) || ':' || coalesce(sum(hashint8extended(h.id, 0)), 0) from config_history h
    where h.tenant_id is not null and h.key in (select jsonb_array_elements_text(keys)));
end $$;
--> statement-breakpoint
-- Keep which defaults became others, as history without a tenant. A default is never JSON's null: none at all is kept as no value.
create or replace function stratum.keep_defaults(who jsonb, old jsonb, new jsonb) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  insert into config_history (key, value, locked, actor)
  select key, nullif(n.definition -> 'default', 'null'), false, stratum.principal_json(who)
  from (select value ->> 'key' as key, value as definition from jsonb_array_elements(old)) as o
  full join (select value ->> 'key' as key, value as definition from jsonb_array_elements(new)) as n using (key)
  where coalesce(o.definition -> 'default', 'null') <> coalesce(n.definition -> 'default', 'null');
end $$;
--> statement-breakpoint
-- Make or replace definitions that were checked against the stored values of this digest.
create or replace function stratum.put_config_definitions(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('put_config_definitions', actor, input);
  old jsonb;
  new jsonb;
begin
  perform stratum.lock_definitions('exclusive');
  perform stratum.lock_chain(stratum.system_chain());
  if stratum.stored_config_digest(input -> 'keys') is distinct from input ->> 'digest' then perform stratum.fail('CONFIG_DEFINITIONS_CHANGED'); end if;
  old := (select coalesce(jsonb_agg(stratum.config_definition_json(d) order by d.key), '[]') from config_definitions d);
  insert into config_definitions (key, schema, default_value, description, sensitive)
  select d.value ->> 'key', d.value -> 'schema', nullif(d.value -> 'default', 'null'), d.value ->> 'description', (d.value ->> 'sensitive')::boolean
  from jsonb_array_elements(input -> 'definitions') as d
  on conflict (key) do update set schema = excluded.schema, default_value = excluded.default_value, description = excluded.description,
    sensitive = excluded.sensitive, updated_at = now();
  delete from config_definitions d where d.key in (select jsonb_array_elements_text(input -> 'remove'));
  update installation i set definitions_version = i.definitions_version + 1, strict_config = coalesce((input ->> 'strict')::boolean, i.strict_config);
  new := (select coalesce(jsonb_agg(stratum.config_definition_json(d) order by d.key), '[]') from config_definitions d);
  perform stratum.keep_defaults(who, old, new);
  perform stratum.record(who, stratum.system_chain(), 'config_definitions.put', '{"type": "config_definitions"}', old, new,
    -- defaults stand in every context
    '[["definitions", ""], ["installation", ""]]');
  return jsonb_build_object('next', null, 'data', new);
end $$;
--> statement-breakpoint
-- An entry of a key that nobody sets. STABLE, as what it calls is, or the planner would not inline it.
create or replace function stratum.default_entry_json(key text, value jsonb) returns jsonb
language sql stable parallel safe as $$
  select jsonb_build_object('key', key, 'value', value, 'locked', false, 'sensitive', false, 'source_tenant_id', null, 'inherited', true)
$$;
--> statement-breakpoint
-- What holds for a key that nobody sets.
create or replace function stratum.config_defaults() returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return (
    select coalesce(jsonb_object_agg(d.key, stratum.default_entry_json(d.key, d.default_value)), '{}')
    from config_definitions d where d.default_value is not null);
end $$;
--> statement-breakpoint
-- The same at a moment, by what was kept of defaults.
create or replace function stratum.config_defaults_at(at timestamptz) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return (
    select coalesce(jsonb_object_agg(d.key, stratum.default_entry_json(d.key, d.value)), '{}') from (
      select distinct on (h.key) h.key, h.value from config_history h
      where h.tenant_id is null and date_trunc('milliseconds', h.changed_at) <= at order by h.key, h.id desc) as d
    where d.value is not null);
end $$;
