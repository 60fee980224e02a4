-- Active, suspended, archived, and back; alone or with all below.

-- Give an active tenant and, if asked to, all active ones below it another status. Those below remember the
-- top, so that resuming the top resumes exactly them; one that was suspended earlier stays as it is.
create or replace function stratum.deactivate(t stratum.tenants, target text) returns uuid[]
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  changed uuid[];
begin
  with changing as (
    update tenants d set status = target, updated_at = now(), deleted_at = case when target = 'archived' then now() end,
      suspended_with = case when d.id <> t.id and target = 'suspended' then t.id end,
      archived_with = case when d.id <> t.id and target = 'archived' then t.id end
    where d.path >= t.path and d.path < stratum.subtree_end(t.path) and (d.status = 'active' or d.id = t.id)
    returning d.id
  )
  select array_agg(id order by id) into changed from changing;
  return changed;
end $$;
--> statement-breakpoint
-- Make a tenant active, and then from the top down those that remember it, as far as their parents are active and
-- the caller reaches them: one may have moved elsewhere since. What stays inactive forgets it, so that it does not
-- come back with a later resume, after a suspension it was no part of.
create or replace function stratum.reactivate(who jsonb, t stratum.tenants) returns uuid[]
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  changed uuid[] := array[t.id];
  level uuid[];
begin
  update tenants set status = 'active', updated_at = now(), deleted_at = null, suspended_with = null, archived_with = null where id = t.id;
  loop
    level := array(
      select c.id from tenants c left join tenants p on p.id = c.parent_id -- one may be a root by now
      where (c.suspended_with = t.id or c.archived_with = t.id) and coalesce(p.status, 'active') = 'active' and stratum.reaches(who, c.path)
      order by c.path for no key update of c);
    exit when level = '{}';
    update tenants set status = 'active', updated_at = now(), deleted_at = null, suspended_with = null, archived_with = null where id = any (level);
    changed := changed || level;
  end loop;
  update tenants set suspended_with = null, archived_with = null where suspended_with = t.id or archived_with = t.id;
  return changed;
end $$;
--> statement-breakpoint
-- Suspend, resume and archive are one change of status; which states allow it and what follows differ.
create or replace function stratum.change_status(who jsonb, input jsonb, target text, allowed text[], action text) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  parent tenants;
  old tenants;
  new tenants;
  changed uuid[];
begin
  select p.* into parent from tenants p where p.id = (select t.parent_id from tenants t where t.id = (input ->> 'id')::uuid) for share;
  select * into strict old from tenants where id = (input ->> 'id')::uuid for no key update;
  perform stratum.require_status(old, allowed, array_to_string(allowed, ' or '));
  if target = 'active' then
    if parent.id is not null then perform stratum.require_status(parent, '{active}', 'an active parent'); end if;
  elsif not coalesce((input ->> 'cascade')::boolean, false)
    and exists (select from tenants child where child.parent_id = old.id and child.status = 'active') then
    perform stratum.fail('TENANT_HAS_CHILDREN');
  end if;
  perform stratum.lock_chain(old.id);
  changed := case when target = 'active' then stratum.reactivate(who, old) else stratum.deactivate(old, target) end;
  select * into strict new from tenants where id = old.id;
  perform stratum.record(who, new.id, action, stratum.resource('tenant', new.id),
    jsonb_build_object('status', old.status), jsonb_build_object('status', new.status, 'changed', stratum.id_list(changed)),
    -- one that remembers the top may have moved elsewhere since
    (select jsonb_agg(jsonb_build_array('subtree', t.path)) from tenants t
     where t.id = new.id or t.id = any (changed) and not stratum.within(t.path, new.path)));
  return stratum.tenant_json(new);
end $$;
--> statement-breakpoint
-- What changes a whole subtree has the structure to itself.
create or replace function stratum.structure_for(input jsonb) returns text
language sql immutable parallel safe as $$ select case when (input ->> 'cascade')::boolean then 'exclusive' else 'shared' end $$;
--> statement-breakpoint
create or replace function stratum.suspend_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
begin
  return stratum.change_status(stratum.authorize('suspend_tenant', actor, input, stratum.structure_for(input)), input,
    'suspended', '{active}', 'tenant.suspended');
end $$;
--> statement-breakpoint
create or replace function stratum.resume_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
begin
  return stratum.change_status(stratum.authorize('resume_tenant', actor, input, 'exclusive'), input,
    'active', '{suspended,archived}', 'tenant.resumed');
end $$;
--> statement-breakpoint
create or replace function stratum.archive_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
begin
  return stratum.change_status(stratum.authorize('archive_tenant', actor, input, stratum.structure_for(input)), input,
    'archived', '{active,suspended}', 'tenant.archived');
end $$;
--> statement-breakpoint
-- DELETE /tenants/:id is to archive it.
create or replace function stratum.delete_tenant(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
begin
  return stratum.change_status(stratum.authorize('delete_tenant', actor, input, stratum.structure_for(input)), input,
    'archived', '{active,suspended}', 'tenant.archived');
end $$;
