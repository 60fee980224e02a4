-- An operation that is shown and not done, or done only as it was shown. Both run the operation itself and compare what
-- it can change before and after. Compared are digests; values are read for what is shown.

-- The structure lock of an operation that can be shown, as the operation itself takes it.
create or replace function stratum.structure_of(operation text, input jsonb) returns text
language sql immutable parallel safe as $$
  select case
    when operation in ('move_tenant', 'resume_tenant') then 'exclusive'
    when operation in ('suspend_tenant', 'archive_tenant', 'delete_tenant') then stratum.structure_for(input)
    when operation = 'delete_permission' then 'shared'
    else 'none'
  end
$$;
--> statement-breakpoint
-- Authorize an operation that is shown, or done as it was shown, and take its locks on all that it overwrites, before
-- the state is read that it is compared with: what others do while this waits belongs to that state, or what was never
-- shown would be done. The same locks in the same order, so that the operation itself takes no further one.
create or replace function stratum.authorize_shown(operation text, actor jsonb, input jsonb) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize(operation, actor, input, stratum.structure_of(operation, input));
  top uuid := (input ->> 'id')::uuid;
  t tenants;
begin
  case
    when operation in ('suspend_tenant', 'resume_tenant', 'archive_tenant', 'delete_tenant') then
      perform from tenants p where p.id = (select c.parent_id from tenants c where c.id = top) for share;
      perform from tenants c where c.id = top for no key update;
    when operation in ('set_config', 'batch_set_config', 'delete_config', 'create_permission', 'update_permission', 'delete_permission') then
      t := stratum.lock_active_tenant(who, top, 'an active tenant');
      perform stratum.require_definitions(input);
      perform stratum.lock_chain(top);
      perform from permission_policies own join tenants d on d.id = own.tenant_id or operation = 'delete_permission'
          and own.revocation_mode = 'CASCADE' and d.path > t.path and d.path < stratum.subtree_end(t.path)
        join permission_policies p on p.tenant_id = d.id and p.key = own.key
      where own.id = (input ->> 'policy_id')::uuid and own.tenant_id = top order by d.path for update of p;
    when operation = 'move_tenant' then null; -- what it writes nobody else writes without the structure
  end case;
  return who;
end $$;
--> statement-breakpoint
-- Of an operation on a tenant, what it can change of what holds for that and all below: { status: [''] }, or the keys of
-- config and permissions. A move changes only keys in which the two parents differ: below, all others come out the same.
create or replace function stratum.changeable(operation text, input jsonb) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  old_path ltree := (select p.path from tenants t join tenants p on p.id = t.parent_id where t.id = (input ->> 'id')::uuid);
  new_path ltree := (select p.path from tenants p where p.id = (input ->> 'new_parent_id')::uuid);
begin
  case
    when operation in ('suspend_tenant', 'resume_tenant', 'archive_tenant', 'delete_tenant') then
      return '{"status": [""]}';
    when operation in ('set_config', 'delete_config') then
      return jsonb_build_object('config', jsonb_build_array(input -> 'key'));
    when operation = 'batch_set_config' then
      return jsonb_build_object('config', (select coalesce(jsonb_agg(distinct e.value -> 'key'), '[]') from jsonb_array_elements(input -> 'entries') as e));
    when operation in ('create_permission', 'update_permission', 'delete_permission') then
      return jsonb_build_object('permission', (
        select coalesce(jsonb_agg(k.key), '[]') from (
          select input ->> 'key' as key where operation = 'create_permission'
          union select p.key from permission_policies p where p.id = (input ->> 'policy_id')::uuid and p.tenant_id = (input ->> 'id')::uuid) as k));
    when operation = 'move_tenant' then
      return jsonb_build_object('config', (
        select coalesce(jsonb_agg(key), '[]')
        from jsonb_each(stratum.resolved_config(null, old_path, true)) as o (key, entry)
        full join jsonb_each(stratum.resolved_config(null, new_path, true)) as n (key, entry) using (key)
        where (o.entry -> 'value', o.entry -> 'locked', o.entry -> 'sealed' -> 'ciphertext')
          is distinct from (n.entry -> 'value', n.entry -> 'locked', n.entry -> 'sealed' -> 'ciphertext')
      ), 'permission', (
        select coalesce(jsonb_agg(key), '[]')
        from jsonb_each(stratum.resolved_permissions(old_path)) as o (key, policy)
        full join jsonb_each(stratum.resolved_permissions(new_path)) as n (key, policy) using (key)
        where (o.policy -> 'value', o.policy -> 'mode') is distinct from (n.policy -> 'value', n.policy -> 'mode')));
  end case;
end $$;
--> statement-breakpoint
-- The tenants whose status an operation on one may change: it, all below, and what resumes with it, which may have
-- moved elsewhere since; out of the caller's reach it answers as if it did not exist.
create or replace function stratum.affected_tenants(who jsonb, top uuid) returns uuid[]
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  reach ltree := (who ->> 'path')::ltree;
begin
  return array(
    select d.id from tenants t join tenants d on d.path >= t.path and d.path < stratum.subtree_end(t.path) where t.id = top
    union select d.id from tenants d where d.suspended_with = top and stratum.within(d.path, reach)
    union select d.id from tenants d where d.archived_with = top and stratum.within(d.path, reach));
end $$;
--> statement-breakpoint
-- What stands for a value where only sameness matters; of a secret its ciphertext does.
create or replace function stratum.digest_of(value jsonb, ciphertext text) returns text
language sql immutable parallel safe as $$
  select case when ciphertext is null then 'value ' || stratum.sha256_hex(value::text) else 'secret ' || stratum.sha256_hex(ciphertext) end
$$;
--> statement-breakpoint
-- What holds of some keys for a tenant and all below it, one row for each tenant and key, with null where nothing does:
-- who sets it, in which mode, and its digest. The fold goes down level by level. Config folds as permissions do: a locked
-- entry as LOCKED, any other as DELEGATED. The top itself is resolved by what answers everybody.
create or replace function stratum.held_below(top uuid, field text, keys text[])
returns table (tenant_id uuid, key text, source uuid, mode text, digest text)
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  t tenants;
  resolved jsonb;
begin
  select * into t from tenants where id = top;
  resolved := case field when 'config' then stratum.resolved_config(t.id, t.path, true) else stratum.resolved_permissions(t.path) end;
  return query with recursive held (tenant_id, key, source, mode, digest) as (
    select t.id, k.key, (r.entry ->> 'source_tenant_id')::uuid,
      case (r.entry ->> 'locked')::boolean when true then 'LOCKED' else coalesce(r.entry ->> 'mode', case when r.entry is not null then 'DELEGATED' end) end,
      stratum.digest_of(r.entry -> 'value', r.entry -> 'sealed' ->> 'ciphertext')
    from unnest(keys) as k (key) cross join lateral (select resolved -> k.key as entry) as r
    union all
    select c.id, h.key, case when own.mode is null then h.source else c.id end,
      case when own.mode is null or h.mode = 'INHERITED' then h.mode else own.mode end, coalesce(own.digest, h.digest)
    from held h join tenants c on c.parent_id = h.tenant_id
    left join lateral (
      select case when e.locked then 'LOCKED' else 'DELEGATED' end as mode, stratum.digest_of(e.value, e.ciphertext) as digest
      from config_entries e where field = 'config' and h.mode is distinct from 'LOCKED' and e.tenant_id = c.id and e.key = h.key
      union all
      select p.mode, stratum.digest_of(p.value, null)
      from permission_policies p where field = 'permission' and h.mode is distinct from 'LOCKED' and p.tenant_id = c.id and p.key = h.key
    ) as own on true
  ) select * from held;
end $$;
--> statement-breakpoint
-- Refuse to compare more than a second or two of work, for which an operation may hold the structure: 50,000 entries (a
-- tenant's status, or what it has of one key), whose values may take 256 MiB. Counting ends where that is passed.
create or replace function stratum.require_comparable(top uuid, can_change jsonb, affected uuid[]) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  maximum_entries constant bigint := 50000;
  maximum_bytes constant bigint := 268435456;
  t tenants;
  entries bigint;
  bytes bigint := 0;
  size integer;
begin
  select * into t from tenants where id = top;
  entries := case when can_change ? 'status' then cardinality(affected) else
    (select count(*) from tenants d where d.path >= t.path and d.path < stratum.subtree_end(t.path))
      * (select sum(jsonb_array_length(c.value)) from jsonb_each(can_change) as c) end;
  if entries > maximum_entries then
    perform stratum.fail('DRY_RUN_TOO_LARGE', jsonb_build_object('what', 'entries', 'maximum', maximum_entries));
  end if;
  for size in
    -- what is not compressed is told without being read
    select coalesce(case when pg_column_compression(v.value) is null then pg_column_size(v.value) else octet_length(v.value::text) end, pg_column_size(v.ciphertext))
    from tenants d cross join lateral (
      select e.value, e.ciphertext from config_entries e where e.tenant_id = d.id and e.key in (select jsonb_array_elements_text(can_change -> 'config'))
      union all
      select p.value, null from permission_policies p where p.tenant_id = d.id and p.key in (select jsonb_array_elements_text(can_change -> 'permission'))
    ) as v
    where d.path >= t.path and d.path < stratum.subtree_end(t.path)
  loop
    bytes := bytes + size;
    if bytes > maximum_bytes then
      perform stratum.fail('DRY_RUN_TOO_LARGE', jsonb_build_object('what', 'bytes of values', 'maximum', maximum_bytes));
    end if;
  end loop;
end $$;
--> statement-breakpoint
-- What dry runs stood on before the first release; nothing calls these any more.
drop function if exists stratum.effective_state(uuid[]), stratum.describe_changes(jsonb, jsonb);
--> statement-breakpoint
-- What is compared, before and after: for each tenant and each thing that can change who sets it and what is told of it.
create or replace function stratum.effective_state(top uuid, can_change jsonb, affected uuid[])
returns table (tenant_id uuid, field text, key text, source uuid, told text)
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  kind text;
begin
  for kind in select jsonb_object_keys(can_change) loop
    if kind = 'status' then
      return query select d.id, kind, '', null::uuid, d.status from unnest(affected) as a (id) join tenants d on d.id = a.id;
    else
      return query select h.tenant_id, kind, h.key, h.source, h.mode || ' ' || h.digest
        from stratum.held_below(top, kind, array(select jsonb_array_elements_text(can_change -> kind))) as h;
    end if;
  end loop;
end $$;
--> statement-breakpoint
-- Run an operation and compare what it can change before and after. `differences`, of which the first thousand are
-- listed as [tenant_id, field, key, set by and told before, set by and told after], are told by a version that stands for exactly them.
create or replace function stratum.run_compared(who jsonb, operation text, actor jsonb, input jsonb, out done jsonb, out differences jsonb)
language plpgsql volatile set search_path = stratum, pg_temp set plan_cache_mode = force_custom_plan set work_mem = '32MB' as $$
declare
  top uuid := (input ->> 'id')::uuid;
  can_change jsonb := stratum.changeable(operation, input);
  affected uuid[] := case when can_change ? 'status' then stratum.affected_tenants(who, top) end;
  ids uuid[];
  fields text[];
  keys text[];
  sources uuid[];
  tolds text[];
begin
  perform stratum.require_comparable(top, can_change, affected);
  select array_agg(s.tenant_id), array_agg(s.field), array_agg(s.key), array_agg(s.source), array_agg(s.told)
  into ids, fields, keys, sources, tolds from stratum.effective_state(top, can_change, affected) as s;
  done := stratum.run(operation, actor, input);
  with differing as (
    select row_number() over (order by tenant_id, field, key collate "C") as n, tenant_id, field, key,
      b.source as old_source, b.told as old, a.source as new_source, a.told as new
    from unnest(ids, fields, keys, sources, tolds) as b (tenant_id, field, key, source, told)
    left join stratum.effective_state(top, can_change, affected) as a using (tenant_id, field, key)
    where b.told is distinct from a.told
  )
  select jsonb_build_object('total', count(*),
    -- of secrets only whether they change: one that is encrypted again has another ciphertext
    'version', stratum.sha256_hex(coalesce(string_agg(concat_ws('|', d.tenant_id, d.field, d.key,
      coalesce(regexp_replace(d.old, ' secret .*', ' secret'), '-'), coalesce(regexp_replace(d.new, ' secret .*', ' secret'), '-')), E'\n' order by d.n), '')),
    'listed', coalesce(jsonb_agg(jsonb_build_array(d.tenant_id, d.field, d.key, d.old_source, d.old, d.new_source, d.new) order by d.n)
      filter (where d.n <= 1000), '[]'))
  into differences from differing as d;
end $$;
--> statement-breakpoint
-- What a change shows of one side, while that is what the tables hold.
create or replace function stratum.shown_value(field text, entry_key text, source uuid, told text) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  told_mode text := split_part(told, ' ', 1);
begin
  return case
    when told is null then 'null'
    when field = 'status' then to_jsonb(told)
    when field = 'permission' then (select jsonb_build_object('value', p.value, 'mode', told_mode) from permission_policies p where p.tenant_id = source and p.key = entry_key)
    when split_part(told, ' ', 2) = 'secret' then jsonb_build_object('sensitive', true, 'locked', told_mode = 'LOCKED')
    when source is null then (select jsonb_build_object('value', d.default_value, 'locked', false) from config_definitions d where d.key = entry_key)
    else (select jsonb_build_object('value', e.value, 'locked', told_mode = 'LOCKED') from config_entries e where e.tenant_id = source and e.key = entry_key)
  end;
end $$;
--> statement-breakpoint
-- The values of listed changes in their order, until they would take more than 4 MiB; `at` is where in each the source stands.
create or replace function stratum.shown_values(listed jsonb, at integer) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  return (
    select coalesce(jsonb_agg(r.value order by r.n) filter (where r.bytes <= 4194304), '[]') from (
      select s.n, s.value, sum(octet_length(s.value::text)) over (order by s.n) as bytes from (
        select l.n, coalesce(stratum.shown_value(l.change ->> 1, l.change ->> 2, (l.change ->> at)::uuid, l.change ->> at + 1), 'null') as value
        from jsonb_array_elements(listed) with ordinality as l (change, n)) as s
    ) as r);
end $$;
--> statement-breakpoint
-- Show what an operation would do: it runs, and is rolled back here. Input: { operation, input }.
create or replace function stratum.dry_run(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize_shown(input ->> 'operation', actor, input -> 'input');
  ran record;
  new_values jsonb;
  changes jsonb;
begin
  begin
    select * into ran from stratum.run_compared(who, input ->> 'operation', actor, input -> 'input');
    new_values := stratum.shown_values(ran.differences -> 'listed', 5);
    raise exception using errcode = 'STDRY', message = 'rolled back, as it was only to be shown';
  exception when sqlstate 'STDRY' then null;
  end;
  select coalesce(jsonb_agg(jsonb_build_object('tenant_id', l.change -> 0, 'field', l.change -> 1, 'key', nullif(l.change ->> 2, ''),
      'from', old.value, 'to', new.value) order by n), '[]') into changes
  from jsonb_array_elements(ran.differences -> 'listed') with ordinality as l (change, n)
  join jsonb_array_elements(stratum.shown_values(ran.differences -> 'listed', 3)) with ordinality as old (value, n) using (n)
  join jsonb_array_elements(new_values) with ordinality as new (value, n) using (n);
  return jsonb_build_object('changes', changes, 'total', ran.differences -> 'total', 'version', ran.differences -> 'version',
    'truncated', (ran.differences ->> 'total')::integer > jsonb_array_length(changes))
    -- of what is judged part by part, the parts that would be refused
    || case when ran.done ? 'results' then jsonb_build_object('refused', jsonb_path_query_array(ran.done -> 'results', '$[*] ? (exists (@.error))')) else '{}' end;
end $$;
--> statement-breakpoint
-- Do it if it does exactly what was shown, or not at all. Input: { operation, input, version }.
create or replace function stratum.run_if_match(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize_shown(input ->> 'operation', actor, input -> 'input');
  ran record;
begin
  select * into ran from stratum.run_compared(who, input ->> 'operation', actor, input -> 'input');
  if ran.differences ->> 'version' <> input ->> 'version' then perform stratum.fail('VERSION_MISMATCH'); end if;
  return ran.done;
end $$;
