-- What a request may ask of any operation: to be done once however often it is sent, to be shown and not done,
-- or to be done only if it does just what was shown. Each runs the operation itself, by its name, inside its own
-- transaction, so none of them can disagree with it.

-- Run an operation of the inventory. The name is checked against it before it becomes SQL.
create or replace function stratum.run(operation text, actor jsonb, input jsonb) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  answer jsonb;
begin
  if not exists (select from operations o where o.name = operation) then perform stratum.fail('DATABASE_OUTDATED'); end if;
  execute format('select stratum.%I($1, $2)', operation) into answer using actor, input;
  return answer;
end $$;
--> statement-breakpoint
-- The tenants whose ids a text holds.
create or replace function stratum.mentioned_tenants(said text) returns uuid[]
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return array(select t.id from tenants t where t.id in (
    select found.id[1]::uuid from regexp_matches(said, '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'gi') as found (id)));
end $$;
--> statement-breakpoint
-- Fail for who cannot be told from others: what one was answered would be given to another.
create or replace function stratum.require_subject(actor jsonb) returns void
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  message text := 'needs a token that says whose it is (sub), or an API key';
begin
  if actor -> 'credential' ->> 'type' = 'token' and actor -> 'credential' ->> 'subject' is null then
    perform stratum.principal(actor); -- 401 comes first
    perform stratum.fail('INVALID_REQUEST', jsonb_build_object('reason', 'Idempotency-Key: ' || message,
      'issues', jsonb_build_array(jsonb_build_object('path', 'Idempotency-Key', 'message', message))));
  end if;
end $$;
--> statement-breakpoint
-- Who may ask for an operation once, and for its answer again, which is not for who may no longer ask. A purge alone leaves
-- nothing that could be reached: its answer, which holds ids and counts, is for whoever it was given to. Nobody else gets beyond
-- this: no answer is kept for them, and the operation itself is refused them.
create or replace function stratum.authorize_once(operation text, actor jsonb, input jsonb) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  perform stratum.require_subject(actor);
  return stratum.authorize(operation, actor, input);
exception when sqlstate 'STRAT' then
  if sqlerrm <> 'TENANT_NOT_FOUND' or operation <> 'purge_tenant' then raise; end if;
  -- the scope was judged before the reach, and a host that is unknown is refused here once more
  return stratum.narrow(stratum.principal(actor), actor -> 'named');
end $$;
--> statement-breakpoint
-- Idempotency. The row is inserted first, so whoever sends the same at the same time waits for the winner; what
-- fails takes its row with it. Input: { operation, input, key, input_hash }. A replayed answer says so.
create or replace function stratum.run_once(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize_once(input ->> 'operation', actor, input -> 'input');
  -- With a stored issuer by its id: a tenant may give its own the name of another's.
  asker text := (jsonb_build_array(who -> 'type', who -> 'issuer', who -> 'id', who -> 'tenant_id')
    || case when who ->> 'issuer_id' is null then '[]' else jsonb_build_array(who -> 'issuer_id') end)::text;
  earlier idempotency_keys;
  done jsonb;
begin
  delete from idempotency_keys k where k.principal = asker and k.operation = input ->> 'operation' and k.key = input ->> 'key'
    and k.created_at < now() - interval '24 hours';
  -- and a few of everybody's, waiting for nobody, so that none stays for long
  delete from idempotency_keys k using (
    select e.principal, e.operation, e.key from idempotency_keys e where e.created_at < now() - interval '24 hours'
    order by e.created_at limit 100 for update skip locked) as expired
  where k.principal = expired.principal and k.operation = expired.operation and k.key = expired.key;
  insert into idempotency_keys (principal, operation, key, input_hash)
  values (asker, input ->> 'operation', input ->> 'key', input ->> 'input_hash') on conflict do nothing;
  if not found then
    select * into strict earlier from idempotency_keys k
    where k.principal = asker and k.operation = input ->> 'operation' and k.key = input ->> 'key';
    if earlier.input_hash <> input ->> 'input_hash' then perform stratum.fail('IDEMPOTENCY_KEY_REUSED'); end if;
    -- whoever sees this transaction sees the earlier one: so a replay has a version to read the own write at, too
    perform pg_current_xact_id();
    -- `asked_of` stands in answers that an earlier release stored
    return earlier.answer - 'asked_of' || '{"idempotent_replay": true}';
  end if;
  done := stratum.run(input ->> 'operation', actor, input -> 'input');
  -- with the tenants that it is about, and whose the asker is: a purge of one erases these
  update idempotency_keys k set answer = done,
    tenant_ids = stratum.mentioned_tenants(concat_ws(' ', who ->> 'tenant_id', input -> 'input', done))
  where k.principal = asker and k.operation = input ->> 'operation' and k.key = input ->> 'key';
  return done;
end $$;
--> statement-breakpoint
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
-- The tenants that an operation on one may change something for: it, all below, and what resumes with it, which
-- may have moved elsewhere since; out of the caller's reach it answers as if it did not exist.
create or replace function stratum.affected_tenants(who jsonb, top uuid) returns uuid[]
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  return array(
    select d.id from tenants t join tenants d on d.path >= t.path and d.path < stratum.subtree_end(t.path) where t.id = top
    union select d.id from tenants d where d.suspended_with = top and stratum.reaches(who, d.path)
    union select d.id from tenants d where d.archived_with = top and stratum.reaches(who, d.path));
end $$;
--> statement-breakpoint
-- All that effectively holds for some tenants, each thing under `tenant|field|key`. A secret is told by a digest of
-- its ciphertext, to see whether it changed.
create or replace function stratum.effective_state(of_tenants uuid[]) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  return (
    select coalesce(jsonb_object_agg(s.name, s.value), '{}') from tenants d
    cross join lateral (
      select d.id || '|status|' as name, jsonb_build_object('shown', d.status) as value
      union all
      select d.id || '|config|' || c.key, case when c.value ? 'sealed'
          then jsonb_build_object('shown', jsonb_build_object('sensitive', true, 'locked', c.value -> 'locked'), 'digest', stratum.sha256_hex(c.value -> 'sealed' ->> 'ciphertext'))
          else jsonb_build_object('shown', jsonb_build_object('value', c.value -> 'value', 'locked', c.value -> 'locked')) end
        from jsonb_each(stratum.resolved_config(d.id, d.path, true)) as c
      union all
      select d.id || '|permission|' || p.key, jsonb_build_object('shown', jsonb_build_object('value', p.value -> 'value', 'mode', p.value -> 'mode'))
        from jsonb_each(stratum.resolved_permissions(d.path)) as p
    ) as s
    where d.id = any (of_tenants));
end $$;
--> statement-breakpoint
-- The differences of two such states, and a version that stands for exactly them.
create or replace function stratum.describe_changes(before jsonb, after jsonb) returns jsonb
language plpgsql stable set search_path = stratum, pg_temp as $$
declare
  changes jsonb;
begin
  select coalesce(jsonb_agg(jsonb_build_object('tenant_id', split_part(name, '|', 1), 'field', split_part(name, '|', 2),
      'key', nullif(substring(name from '^[^|]*[|][^|]*[|](.*)$'), ''), 'from', b.value -> 'shown', 'to', a.value -> 'shown') order by name), '[]') into changes
  from (select e.key as name, e.value from jsonb_each(before) as e) as b
  full join (select e.key as name, e.value from jsonb_each(after) as e) as a using (name)
  where b.value is distinct from a.value;
  return jsonb_build_object('changes', jsonb_path_query_array(changes, '$[0 to 999]'), 'total', jsonb_array_length(changes),
    'truncated', jsonb_array_length(changes) > 1000, 'version', stratum.sha256_hex(changes::text));
end $$;
--> statement-breakpoint
-- Show what an operation would do: it runs, and is rolled back here. Input: { operation, input }.
create or replace function stratum.dry_run(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize_shown(input ->> 'operation', actor, input -> 'input');
  affected uuid[];
  before jsonb;
  shown jsonb;
begin
  begin
    affected := stratum.affected_tenants(who, (input -> 'input' ->> 'id')::uuid);
    before := stratum.effective_state(affected);
    perform stratum.run(input ->> 'operation', actor, input -> 'input');
    shown := stratum.describe_changes(before, stratum.effective_state(affected));
    raise exception using errcode = 'STDRY', message = 'rolled back, as it was only to be shown';
  exception when sqlstate 'STDRY' then
    return shown;
  end;
end $$;
--> statement-breakpoint
-- Do it if it does exactly what was shown, or not at all. Input: { operation, input, version }.
create or replace function stratum.run_if_match(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize_shown(input ->> 'operation', actor, input -> 'input');
  affected uuid[];
  before jsonb;
  done jsonb;
begin
  affected := stratum.affected_tenants(who, (input -> 'input' ->> 'id')::uuid);
  before := stratum.effective_state(affected);
  done := stratum.run(input ->> 'operation', actor, input -> 'input');
  if stratum.describe_changes(before, stratum.effective_state(affected)) ->> 'version' <> input ->> 'version' then
    perform stratum.fail('VERSION_MISMATCH');
  end if;
  return done;
end $$;
