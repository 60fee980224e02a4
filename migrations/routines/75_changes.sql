-- The change feed, as those who keep answers read it: src/resolver/change-feed.ts says how.

-- Where the feed is now. The identity differs after a restore, which rewinds transaction ids; `feed_epoch` is renewed
-- by hand where the server's own marks cannot tell (a restore in place of the same timeline).
create or replace function stratum.feed_position() returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  return (
    select jsonb_build_object('snapshot', pg_current_snapshot()::text,
      'identity', (select system_identifier from pg_control_system()) || ':' || (select timeline_id from pg_control_checkpoint()) || ':' || i.feed_epoch,
      'anchor', (select jsonb_build_array(c.id, c.xid::text, c.nonce) from changes c order by c.id desc limit 1))
    from installation i);
end $$;
--> statement-breakpoint
-- What changed since a position. One statement reads rows and snapshot, so that they tell of the same moment. A
-- replica's own snapshot does not list what runs on its primary; there every row since xmin counts as new.
-- Callable without a credential: it tells paths, slugs and ids of what changed, and the edge's role alone may ask.
create or replace function stratum.read_changes(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  seen pg_snapshot := (input ->> 'snapshot')::pg_snapshot;
  anchor jsonb := nullif(input -> 'anchor', 'null');
begin
  return (
    select stratum.feed_position() || jsonb_build_object('snapshot', pg_current_snapshot()::text,
      'rows', (
        select coalesce(jsonb_agg(jsonb_build_array(fresh.kind, fresh.ref)), '[]') from (
          select c.kind, c.ref from changes c
          where c.xid >= pg_snapshot_xmin(seen) and (pg_is_in_recovery() or not pg_visible_in_snapshot(c.xid, seen))
          limit 1001) as fresh),
      'complete', i.changes_trimmed_to < pg_snapshot_xmin(seen) and (anchor is null or i.changes_trimmed_to >= (anchor ->> 1)::xid8
        or exists (select from changes c where c.id = (anchor ->> 0)::bigint and c.xid = (anchor ->> 1)::xid8 and c.nonce = (anchor ->> 2)::uuid)))
    from installation i);
end $$;
--> statement-breakpoint
-- Delete rows of the feed that are older than `keep`, and remember up to which transaction. Who has not polled for that
-- long starts anew. Run by the provisioner, as the owner.
create or replace function stratum.trim_changes(keep interval) returns bigint
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  trimmed bigint;
  up_to xid8;
begin
  with gone as (delete from changes c where c.created_at < now() - keep returning c.xid)
  select count(*), max(g.xid) into trimmed, up_to from gone g;
  if up_to is not null then
    update installation set changes_trimmed_to = greatest(changes_trimmed_to, up_to);
  end if;
  return trimmed;
end $$;
