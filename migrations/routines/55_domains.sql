-- Custom domains. Any number of tenants may claim one; what is verified is one tenant's alone, by a unique index, so
-- a claim blocks nobody. The TXT value that proves a claim is an HMAC of tenant and domain: the process computes it,
-- asks DNS and says here whether it was found. Domains come here as hosts are compared (table custom_domains).

-- True for a domain under which anybody may register, by the rules of the Public Suffix List: itself a rule, or one
-- label below a rule with '*.'; never what a rule with '!' excepts.
create or replace function stratum.is_public_suffix(domain text) returns boolean
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return exists (select from public_suffixes s where s.rule in (domain, regexp_replace(domain, '^[^.]+', '*')))
    and not exists (select from public_suffixes s where s.rule = '!' || domain);
end $$;
--> statement-breakpoint
create or replace function stratum.domain_json(d stratum.custom_domains) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_build_object('tenant_id', d.tenant_id, 'domain', d.domain, 'verified', d.verified_at is not null,
    'verified_at', stratum.iso(d.verified_at), 'checked_at', stratum.iso(d.checked_at), 'missing_since', stratum.iso(d.missing_since),
    'created_at', stratum.iso(d.created_at))
$$;
--> statement-breakpoint
create or replace function stratum.domain_resource(d stratum.custom_domains) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_build_object('type', 'domain', 'tenant_id', d.tenant_id, 'domain', d.domain)
$$;
--> statement-breakpoint
-- Feed rows of a change: whom a host names changes with a verified domain only.
create or replace function stratum.domain_feed(d stratum.custom_domains) returns jsonb
language sql immutable parallel safe as $$
  select case when d.verified_at is null then '[]' else jsonb_build_array(jsonb_build_array('host', d.domain)) end
$$;
--> statement-breakpoint
-- A tenant's own claim, locked for change.
create or replace function stratum.lock_domain(of_tenant uuid, wanted text) returns stratum.custom_domains
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  d custom_domains;
begin
  select * into d from custom_domains c where c.tenant_id = of_tenant and c.domain = wanted for update;
  if not found then perform stratum.fail('DOMAIN_NOT_FOUND', jsonb_build_object('domain', wanted)); end if;
  return d;
end $$;
--> statement-breakpoint
create or replace function stratum.list_domains(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('list_domains', actor, input);
  wanted integer := (input ->> 'limit')::integer;
  rows custom_domains[] := array(
    select d from custom_domains d where d.tenant_id = (input ->> 'id')::uuid and d.domain > coalesce(input -> 'after' ->> 0, '')
    order by d.domain limit wanted + 1);
begin
  return jsonb_build_object(
    'data', (select coalesce(jsonb_agg(stratum.domain_json(r) order by r.domain), '[]') from unnest(rows[:wanted]) as r),
    'next', case when cardinality(rows) > wanted then jsonb_build_array(rows[wanted].domain) end);
end $$;
--> statement-breakpoint
create or replace function stratum.create_domain(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('create_domain', actor, input);
  t tenants;
  created custom_domains;
begin
  if stratum.is_public_suffix(input ->> 'domain') then
    perform stratum.fail('DOMAIN_NOT_ALLOWED', '{"reason": "it is a public suffix, under which anybody may register"}');
  end if;
  t := stratum.lock_active_tenant(who, (input ->> 'id')::uuid, 'an active tenant');
  perform stratum.lock_chain(t.id);
  insert into custom_domains (tenant_id, domain) values (t.id, input ->> 'domain') on conflict do nothing returning * into created;
  if not found then perform stratum.fail('DOMAIN_EXISTS', jsonb_build_object('domain', input -> 'domain')); end if;
  if (select count(*) > 100 from custom_domains d where d.tenant_id = t.id) then
    perform stratum.fail('DOMAINS_FULL', '{"maximum_domains": 100}');
  end if;
  perform stratum.record(who, t.id, 'domain.created', stratum.domain_resource(created), null, stratum.domain_json(created), '[]');
  return stratum.domain_json(created);
end $$;
--> statement-breakpoint
-- Input: `proven`, what the process saw in DNS, null where DNS gave no answer, and `evidence`, the details of a refusal. That
-- another tenant holds the domain is told only to who has proven that it is theirs.
create or replace function stratum.verify_domain(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('verify_domain', actor, input);
  t tenants := stratum.lock_active_tenant(who, (input ->> 'id')::uuid, 'an active tenant');
  old custom_domains;
  new custom_domains;
begin
  perform stratum.lock_chain(t.id);
  old := stratum.lock_domain(t.id, input ->> 'domain');
  if input ->> 'proven' is null then perform stratum.fail('DNS_UNAVAILABLE', input -> 'evidence'); end if;
  if not (input ->> 'proven')::boolean then perform stratum.fail('DOMAIN_NOT_VERIFIED', input -> 'evidence'); end if;
  if old.verified_at is not null and old.missing_since is null then return stratum.domain_json(old); end if;
  begin
    -- waits for whoever verifies the same domain at the same time
    update custom_domains d set verified_at = coalesce(old.verified_at, now()), checked_at = now(), missing_since = null
    where d.tenant_id = old.tenant_id and d.domain = old.domain returning * into new;
  exception when unique_violation then
    perform stratum.fail('DOMAIN_TAKEN', jsonb_build_object('domain', old.domain));
  end;
  perform stratum.record(who, t.id, 'domain.verified', stratum.domain_resource(new), stratum.domain_json(old), stratum.domain_json(new),
    stratum.domain_feed(new));
  return stratum.domain_json(new);
end $$;
--> statement-breakpoint
create or replace function stratum.delete_domain(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('delete_domain', actor, input);
  t tenants := stratum.lock_active_tenant(who, (input ->> 'id')::uuid, 'an active tenant');
  old custom_domains;
begin
  perform stratum.lock_chain(t.id);
  old := stratum.lock_domain(t.id, input ->> 'domain');
  delete from custom_domains d where d.tenant_id = old.tenant_id and d.domain = old.domain;
  perform stratum.record(who, t.id, 'domain.deleted', stratum.domain_resource(old), stratum.domain_json(old), null, stratum.domain_feed(old));
  return stratum.domain_json(old);
end $$;
--> statement-breakpoint
-- For the daily check, which runs as the owner of this schema: verified domains whose record was last looked for
-- more than a day before `at`, those that have waited longest first.
create or replace function stratum.domains_to_check(at timestamptz, maximum integer) returns table (tenant_id uuid, domain text)
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return query select d.tenant_id, d.domain from custom_domains d
    where d.verified_at is not null and (d.checked_at is null or d.checked_at < at - interval '1 day')
    order by d.checked_at nulls first, d.domain limit maximum;
end $$;
--> statement-breakpoint
-- Write down what a check found: `seen` is null where DNS gave no answer, which counts for nothing. A domain that
-- has shown no record for 7 days is released: its claim stays and is unverified again. Answers what became of it.
create or replace function stratum.settle_domain_check(of_tenant uuid, checked text, seen boolean, at timestamptz) returns text
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  who jsonb := '{"type": "system", "id": "domain check", "tenant_id": null, "scopes": []}';
  old custom_domains;
  new custom_domains;
  released boolean;
  action text;
begin
  perform from tenants t where t.id = of_tenant for share;
  perform stratum.lock_chain(of_tenant);
  select * into old from custom_domains d where d.tenant_id = of_tenant and d.domain = checked and d.verified_at is not null for update;
  if not found then return 'gone'; end if;
  released := not seen and old.missing_since <= at - interval '7 days';
  update custom_domains d set checked_at = at,
    verified_at = case when released then null else old.verified_at end,
    missing_since = case when released or seen then null when seen is null then old.missing_since else coalesce(old.missing_since, at) end
  where d.tenant_id = of_tenant and d.domain = checked returning * into new;
  action := case when released then 'released' when old.missing_since is null and new.missing_since is not null then 'missing'
    when old.missing_since is not null and new.missing_since is null then 'found' end;
  if action is not null then
    perform stratum.record(who, of_tenant, 'domain.' || action, stratum.domain_resource(new), stratum.domain_json(old), stratum.domain_json(new),
      case when released then stratum.domain_feed(old) else '[]' end);
  end if;
  return coalesce(action, 'unchanged');
end $$;
