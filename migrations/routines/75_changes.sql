-- The change feed, as those who keep answers read it: src/resolver/change-feed.ts says how.

-- What a reader of this server has seen. A replica's own snapshot does not list what runs on its primary, so there
-- nothing counts as seen but what is older than all of it.
create or replace function stratum.feed_snapshot() returns pg_snapshot
language plpgsql stable set search_path = stratum, pg_temp as $$
begin
  return case when pg_is_in_recovery() then format('%1$s:%1$s:', pg_snapshot_xmin(pg_current_snapshot()))::pg_snapshot else pg_current_snapshot() end;
end $$;
--> statement-breakpoint
-- Where the feed is now. The identity differs after a restore, which rewinds transaction ids; `feed_epoch` is renewed
-- by hand where the server's own marks cannot tell (a restore in place of the same timeline). What was promoted tells of
-- its new timeline in the recovery's record until the next checkpoint, which may take minutes.
create or replace function stratum.feed_position() returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  return (
    select jsonb_build_object('snapshot', stratum.feed_snapshot()::text,
      'identity', (select system_identifier from pg_control_system()) || ':'
        || (select greatest(c.timeline_id, r.min_recovery_end_timeline) from pg_control_checkpoint() c, pg_control_recovery() r) || ':' || i.feed_epoch,
      'anchor', (select jsonb_build_array(c.id, c.xid::text, c.nonce) from changes c order by c.id desc limit 1))
    from installation i);
end $$;
--> statement-breakpoint
-- What changed since a position; without one, where the feed is. One statement reads rows and snapshot, so that they
-- tell of the same moment. What a snapshot does not hold began after it or is in its list, and is found by index: tested
-- row by row, all that was written since the oldest transaction would be read at each poll. Ordered, as the planner, who
-- does not know how few rows are new, else reads the whole feed. Not `complete`, and so a reader throws everything away, where
--   * rows are gone that it had not seen: by one that began after its snapshot, or ran then and has ended since;
--   * its anchor is gone, though it was not trimmed: what it has seen was taken back;
--   * a row behind its anchor bears a transaction id that it has seen: ids were rewound and given out again.
-- Asked without a position it tells where the feed is, and is not complete either.
-- Callable without a credential: it tells paths, slugs and ids of what changed, and the edge's role alone may ask.
create or replace function stratum.read_changes(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  seen pg_snapshot := (input ->> 'snapshot')::pg_snapshot;
  anchor jsonb := nullif(input -> 'anchor', 'null');
begin
  return (
    select stratum.feed_position() || jsonb_build_object('snapshot', stratum.feed_snapshot()::text,
      'rows', (
        select coalesce(jsonb_agg(jsonb_build_array(fresh.kind, fresh.ref)), '[]') from (
          (select c.kind, c.ref from changes c where c.xid >= pg_snapshot_xmax(seen) order by c.xid limit 1001)
          union all
          (select c.kind, c.ref from changes c where c.xid = any (array(select pg_snapshot_xip(seen))) order by c.xid limit 1001)
          limit 1001) as fresh),
      'complete', coalesce(i.changes_trimmed_to < pg_snapshot_xmax(seen)
        and not exists (select from pg_snapshot_xip(seen) as running
          where running <= i.changes_trimmed_to and pg_visible_in_snapshot(running, pg_current_snapshot()))
        and (anchor is null or i.changes_trimmed_to >= (anchor ->> 1)::xid8
          or exists (select from changes c where c.id = (anchor ->> 0)::bigint and c.xid = (anchor ->> 1)::xid8 and c.nonce = (anchor ->> 2)::uuid))
        and not exists (select from (select c.xid from changes c where c.id > coalesce((anchor ->> 0)::bigint, 0) order by c.id) as later
          where pg_visible_in_snapshot(later.xid, seen)), false))
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
