-- What every other routine stands on: errors, ids, times, the order of the tree.

-- Raise an error of the catalogue (src/core/errors.ts). One private SQLSTATE, the code as the message,
-- facts as JSON in the detail; the database port rebuilds the typed error from these.
create or replace function stratum.fail(code text, details jsonb default '{}') returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  raise exception using errcode = 'STRAT', message = code, detail = details::text;
end $$;
--> statement-breakpoint
-- UUID version 7 (RFC 9562, method 3): 48 bits of Unix milliseconds, 12 bits of the fraction below, the rest
-- random; so ids sort by age even within a millisecond. Postgres has its own from 18 on only.
create or replace function stratum.uuid_v7() returns uuid
language sql volatile parallel safe as $$
  select (lpad(to_hex(microseconds / 1000), 12, '0') || '7' || lpad(to_hex(microseconds % 1000 * 4096 / 1000), 3, '0')
    || right(replace(gen_random_uuid()::text, '-', ''), 16))::uuid
  from (select (extract(epoch from clock_timestamp()) * 1000000)::bigint as microseconds) as now
$$;
--> statement-breakpoint
-- A time as the API writes it. Spelled out, because casting would follow the session's time zone.
create or replace function stratum.iso(at timestamptz) returns text
language sql immutable parallel safe as $$
  select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;
--> statement-breakpoint
-- The end of a subtree in path order: path >= p and path < subtree_end(p) is p and all below it. '-' is the
-- least character a label may hold, so p || '-' sorts after every 'p.…' and before p's next sibling.
-- No SET clause, or the planner would not inline it and the range would not reach the index.
create or replace function stratum.subtree_end(p stratum.ltree) returns stratum.ltree
language sql immutable strict parallel safe as $$
  select stratum.text2ltree(stratum.ltree2text(p) || '-')
$$;
--> statement-breakpoint
-- p and the paths above it, root first. Not STRICT, so that it is inlined; the limit tells the planner how few they are; without it, it
-- expects a thousand and scans the whole tree.
create or replace function stratum.lineage(p stratum.ltree) returns table (path stratum.ltree, depth integer)
language sql immutable parallel safe rows 10 as $$
  select stratum.subpath(p, 0, level), level - 1 from generate_series(1, stratum.nlevel(p)) as level limit 21
$$;
--> statement-breakpoint
-- True when p lies in the reach r: r null is the whole installation, p null is nowhere.
create or replace function stratum.within(p stratum.ltree, r stratum.ltree) returns boolean
language sql immutable parallel safe as $$
  select r is null or coalesce(p operator(stratum.>=) r and p operator(stratum.<) stratum.subtree_end(r), false)
$$;
--> statement-breakpoint
-- True when holding these scopes allows what is needed. src/core/scopes.ts is the same rule.
create or replace function stratum.holds_scope(held text[], needed text) returns boolean
language sql immutable parallel safe as $$
  select case needed
    when 'read' then held && '{read,write,admin}'
    when 'write' then held && '{write,admin}'
    when 'admin' then held && '{admin}'
    when 'secrets:read' then held && '{admin,secrets:read}'
    else false
  end
$$;
--> statement-breakpoint
-- Fail when a value takes more room as Postgres writes it than it may; that can be far more than it took to send.
create or replace function stratum.require_size(field text, value jsonb, maximum_bytes integer) returns void
language plpgsql immutable set search_path = stratum, pg_temp as $$
begin
  if octet_length(value::text) > maximum_bytes then
    perform stratum.fail('VALIDATION_FAILED', jsonb_build_object('reason', format('%s: is larger than %s bytes', field, maximum_bytes),
      'issues', jsonb_build_array(jsonb_build_object('path', field, 'message', format('Must not be larger than %s bytes.', maximum_bytes)))));
  end if;
end $$;
--> statement-breakpoint
-- An audit entry's list of what was changed besides: how many, and the first thousand.
create or replace function stratum.id_list(ids uuid[]) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_build_object('count', cardinality(ids), 'ids', to_jsonb(ids[:1000]))
$$;
--> statement-breakpoint
-- The subdomain of a slug, or null where it is no legal DNS label or is reserved.
create or replace function stratum.subdomain(slug text) returns text
language sql stable parallel safe as $$
  select label from (select replace(slug, '_', '-') as label) as l
  where label !~ '-$' and substring(label from 3 for 2) <> '--'
    and not exists (select from stratum.installation where label = any (reserved_subdomains))
$$;
