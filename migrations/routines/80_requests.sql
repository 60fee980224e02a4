-- What a request may ask of any operation: to be done once however often it is sent, to be shown and not done,
-- or to be done only if it does just what was shown (81_dry_runs.sql). Each runs the operation itself, by its name,
-- inside its own transaction, so none of them can disagree with it.

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
  -- What needs no more than `read` changes nothing, and may judge more of whom it tells of than its rule says: it is
  -- answered as things are now.
  if exists (select from operations o where o.name = input ->> 'operation' and o.scope = 'read') then
    return stratum.run(input ->> 'operation', actor, input -> 'input');
  end if;
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
