-- Jobs: what the provisioner has to do. A job is a row here, which says how it stands and is what people see, and an
-- entry of graphile-worker's queue, which says when it is due; its key and its whole payload are the row's id. Both are
-- written in the transaction of the change that needs the job, so neither is there without the other.
--
-- The queue delivers at least once. What runs a job holds the advisory lock of it meanwhile, and start_job says
-- whether there is anything left to do; so a job that is delivered twice is done once.

-- What there is to do. src/provisioning/tasks.ts has the code of each.
create or replace function stratum.is_task(name text) returns boolean
language sql immutable parallel safe as $$
  select name in ('provision_tenant', 'change_isolation', 'drop_place', 'purge_tenant_data', 'sync_route', 'create_managed_copies')
$$;
--> statement-breakpoint
-- How often a job is tried before it has failed, each time after a longer wait: about half an hour in all. What must
-- come to pass whatever it takes, such as erasure, is tried for days.
create or replace function stratum.maximum_attempts(task text) returns integer
language sql immutable parallel safe as $$
  select case when task in ('sync_route', 'drop_place', 'purge_tenant_data') then 30 else 8 end
$$;
--> statement-breakpoint
-- Is the queue installed in this database?
create or replace function stratum.has_queue() returns boolean
language sql stable as $$ select to_regproc('graphile_worker.add_job') is not null $$;
--> statement-breakpoint
-- Put a job into the queue, or make it due at another time if it is there. An entry that is being worked on stays
-- as it is and another takes its place.
create or replace function stratum.queue_job(job_id uuid, run_at timestamptz) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  perform graphile_worker.add_job(
    identifier => (select j.task from jobs j where j.id = job_id), payload => json_build_object('job_id', job_id), run_at => queue_job.run_at,
    -- counted here, in stratum.jobs; the queue itself never gives up
    max_attempts => 32000, job_key => job_id::text,
    -- a suspension must reach a tenant's own database before anything else happens
    priority => (select case j.task when 'sync_route' then -10 else 0 end from jobs j where j.id = job_id));
end $$;
--> statement-breakpoint
-- Enqueue a job in the caller's transaction. For operations, which run as the owner of the queue, and for the owner.
create or replace function stratum.enqueue(task text, tenant_id uuid, payload jsonb, run_at timestamptz default null) returns uuid
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  new_id uuid := stratum.uuid_v7();
begin
  if not stratum.is_task(task) then raise exception 'there is no task %', task; end if;
  if not stratum.has_queue() then
    perform stratum.fail('PROVISIONING_UNAVAILABLE', jsonb_build_object('isolation_strategy', coalesce(payload ->> 'isolation_strategy',
      (select t.isolation_strategy from tenants t where t.id = enqueue.tenant_id))));
  end if;
  insert into jobs (id, task, tenant_id, payload) values (new_id, enqueue.task, enqueue.tenant_id, coalesce(enqueue.payload, '{}'));
  perform stratum.queue_job(new_id, enqueue.run_at);
  return new_id;
end $$;
--> statement-breakpoint
-- A job was taken from the queue: answers it, or null where nothing is left to do. For the holder of its lock.
create or replace function stratum.start_job(job_id uuid) returns jsonb
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  job jobs;
begin
  -- not locked yet: fail_job locks the tenant first, as everybody does
  select * into job from jobs j where j.id = job_id;
  if not found or job.status not in ('queued', 'running') then return null; end if;
  -- it never came to say how it ended, as its process died with it each time
  if job.attempts >= stratum.maximum_attempts(job.task) then
    perform stratum.fail_job(job_id, coalesce(job.error, '{"code": "INTERNAL_ERROR", "message": "The provisioner ended while it did this, again and again. See its log."}'), true);
    return null;
  end if;
  update jobs j set status = 'running', attempts = j.attempts + 1, started_at = now(), finished_at = null
  where j.id = job_id and j.status in ('queued', 'running') returning * into job;
  if not found then return null; end if;
  return jsonb_build_object('id', job.id, 'task', job.task, 'tenant_id', job.tenant_id, 'payload', job.payload,
    'attempt', job.attempts, 'maximum_attempts', stratum.maximum_attempts(job.task));
end $$;
--> statement-breakpoint
create or replace function stratum.finish_job(job_id uuid) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  update jobs j set error = null, finished_at = now(),
    status = case when exists (select from isolation_changes c where c.job_id = j.id and c.phase = 'cancelled') then 'cancelled' else 'succeeded' end
  where j.id = finish_job.job_id and j.status = 'running';
end $$;
--> statement-breakpoint
-- A try has failed, the last one where `final`. `error` is { code, message } of the catalogue.
create or replace function stratum.fail_job(job_id uuid, error jsonb, final boolean) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  job jobs;
begin
  select * into job from jobs j where j.id = job_id;
  if final and job.task = 'provision_tenant' then
    perform stratum.set_provisioning_status(job.tenant_id, 'failed', fail_job.error);
  end if;
  update jobs j set status = case when final then 'failed' else 'queued' end, error = fail_job.error, finished_at = case when final then now() end
  where j.id = fail_job.job_id and j.status in ('queued', 'running');
end $$;
--> statement-breakpoint
-- A try was broken off, as its provisioner stops: it does not count, and another is due at once.
create or replace function stratum.give_back_job(job_id uuid) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  update jobs j set status = 'queued', attempts = greatest(j.attempts - 1, 0) where j.id = give_back_job.job_id and j.status = 'running';
  if found then perform stratum.queue_job(give_back_job.job_id, null); end if;
end $$;
--> statement-breakpoint
create or replace function stratum.set_job_progress(job_id uuid, progress jsonb) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  update jobs j set progress = set_job_progress.progress where j.id = set_job_progress.job_id;
end $$;
--> statement-breakpoint
-- Jobs whose process died while it had them: they are due again at once. The queue alone would wait for four hours.
-- Nobody holds the lock of such a job; one taken a moment ago is left alone, as its lock may be about to be taken.
create or replace function stratum.recover_jobs(taken_before interval default '2 seconds') returns setof uuid
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  taken record;
begin
  for taken in
    -- the application may have jobs of its own in the same queue
    select q.id, q.payload ->> 'job_id' as job_id from graphile_worker._private_jobs q join graphile_worker._private_tasks k on k.id = q.task_id
    where q.locked_at < now() - taken_before and stratum.is_task(k.identifier) order by q.id
  loop
    continue when not pg_try_advisory_xact_lock(stratum.job_lock(taken.job_id::uuid));
    delete from graphile_worker._private_jobs q where q.id = taken.id and q.locked_at < now() - taken_before;
    continue when not found;
    if exists (select from jobs j where j.id = taken.job_id::uuid and j.status in ('queued', 'running')) then
      perform stratum.queue_job(taken.job_id::uuid, null);
      return next taken.job_id::uuid;
    end if;
  end loop;
end $$;
--> statement-breakpoint
-- The advisory lock that whoever works on a job holds.
create or replace function stratum.job_lock(job_id uuid) returns bigint
language sql immutable parallel safe as $$ select hashtextextended('stratum.job.' || job_id::text, 0) $$;
--> statement-breakpoint
create or replace function stratum.job_json(j stratum.jobs) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_build_object('id', j.id, 'task', j.task, 'tenant_id', j.tenant_id, 'status', j.status, 'attempts', j.attempts, 'error', j.error,
    'progress', j.progress, 'created_at', stratum.iso(j.created_at), 'started_at', stratum.iso(j.started_at), 'finished_at', stratum.iso(j.finished_at))
$$;
--> statement-breakpoint
-- Jobs within the caller's reach, newest first. Those of purged tenants are a global admin's.
create or replace function stratum.list_jobs(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('list_jobs', actor, input);
  reach ltree := (who ->> 'path')::ltree;
  wanted integer := (input ->> 'limit')::integer;
  before_id uuid := coalesce((input -> 'after' ->> 0)::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
  statuses text[] := case when input ->> 'status' is null then '{queued,running,succeeded,failed,cancelled}' else array[input ->> 'status'] end;
  rows jobs[];
begin
  -- three plans for three questions: one tenant's, those of a subtree, all
  if input ->> 'tenant_id' is not null then
    rows := array(
      select j from jobs j where j.tenant_id = (input ->> 'tenant_id')::uuid and j.id < before_id and j.status = any (statuses)
      order by j.id desc limit wanted + 1);
  elsif reach is not null then
    rows := array(
      select j from tenants t join jobs j on j.tenant_id = t.id
      where t.path >= reach and t.path < stratum.subtree_end(reach) and j.id < before_id and j.status = any (statuses)
      order by j.id desc limit wanted + 1);
  else
    rows := array(select j from jobs j where j.id < before_id and j.status = any (statuses) order by j.id desc limit wanted + 1);
  end if;
  return jsonb_build_object(
    'data', (select coalesce(jsonb_agg(stratum.job_json(r) order by r.id desc), '[]') from unnest(rows[:wanted]) as r),
    'next', case when cardinality(rows) > wanted then jsonb_build_array(rows[wanted].id) end);
end $$;
--> statement-breakpoint
create or replace function stratum.get_job(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('get_job', actor, input);
begin
  return (select stratum.job_json(j) from jobs j where j.id = (input ->> 'id')::uuid);
end $$;
--> statement-breakpoint
-- A job to be changed, with its tenant, where that is still there, and the chain that tells of it locked before it.
create or replace function stratum.lock_job(who jsonb, job_id uuid) returns stratum.jobs
language plpgsql volatile set search_path = stratum, pg_temp as $$
declare
  job jobs;
  t tenants;
begin
  select * into strict job from jobs j where j.id = lock_job.job_id;
  if job.tenant_id is not null then
    select * into t from tenants where id = job.tenant_id for no key update;
    if not stratum.reaches(who, t.path) and who ->> 'top' is not null then perform stratum.fail('JOB_NOT_FOUND'); end if;
    -- how a tenant is isolated is decided above it, and so is whether that is called off or tried again
    if job.task = 'change_isolation' and who ->> 'top' is not null
      and not exists (select from tenants p where p.id = t.parent_id and stratum.reaches(who, p.path)) then
      perform stratum.fail('JOB_NOT_FOUND');
    end if;
  end if;
  perform stratum.lock_chain(coalesce(t.id, stratum.system_chain()));
  select * into strict job from jobs j where j.id = lock_job.job_id for update;
  return job;
end $$;
--> statement-breakpoint
create or replace function stratum.record_job(who jsonb, old stratum.jobs, new stratum.jobs, action text) returns void
language plpgsql volatile set search_path = stratum, pg_temp as $$
begin
  perform stratum.record(who, coalesce((select t.id from tenants t where t.id = new.tenant_id), stratum.system_chain()), action,
    stratum.resource('job', new.id), stratum.job_json(old), stratum.job_json(new), '[]');
end $$;
--> statement-breakpoint
-- Try a failed job again, or one that waits for its next try at once.
create or replace function stratum.retry_job(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('retry_job', actor, input);
  old jobs := stratum.lock_job(who, (input ->> 'id')::uuid);
  new jobs;
begin
  if not (old.status = 'failed' or old.status = 'queued' and old.attempts > 0 or old.status = 'cancelled' and old.task = 'provision_tenant') then
    perform stratum.fail('JOB_INVALID_STATE', jsonb_build_object('status', old.status, 'required', 'failed, or waiting for its next try'));
  end if;
  if not stratum.has_queue() then perform stratum.fail('PROVISIONING_UNAVAILABLE'); end if;
  if old.task = 'provision_tenant' then perform stratum.set_provisioning_status(old.tenant_id, 'pending', null, who); end if;
  update jobs j set status = 'queued', attempts = 0, error = null, started_at = null, finished_at = null where j.id = old.id returning * into new;
  perform stratum.queue_job(new.id, null);
  perform stratum.record_job(who, old, new, 'job.retried');
  return stratum.job_json(new);
end $$;
--> statement-breakpoint
-- Call a job off: the making of a tenant's place before it begins, which leaves the tenant failed, or a change of
-- isolation until its cutover. That one is told, undoes what it did, and then is cancelled. The rest must be done.
create or replace function stratum.cancel_job(actor jsonb, input jsonb) returns jsonb
language plpgsql volatile security definer set search_path = stratum, pg_temp as $$
declare
  who jsonb := stratum.authorize('cancel_job', actor, input);
  old jobs := stratum.lock_job(who, (input ->> 'id')::uuid);
  new jobs;
begin
  if old.task = 'change_isolation' then
    update isolation_changes c set cancel_requested = true where c.job_id = old.id and c.finished_at is null;
    if not found then perform stratum.fail('JOB_INVALID_STATE', jsonb_build_object('status', old.status, 'required', 'an unfinished change')); end if;
    update jobs j set status = case when j.status = 'failed' then 'queued' else j.status end, attempts = case when j.status = 'failed' then 0 else j.attempts end
    where j.id = old.id returning * into new;
    if new.status = 'queued' then perform stratum.queue_job(new.id, null); end if;
  elsif old.task = 'provision_tenant' and old.status = 'queued' then
    perform stratum.set_provisioning_status(old.tenant_id, 'failed', null, who);
    update jobs j set status = 'cancelled', finished_at = now() where j.id = old.id returning * into new;
    perform graphile_worker.remove_job(new.id::text);
  else
    perform stratum.fail('JOB_INVALID_STATE', jsonb_build_object('status', format('%s, %s', old.task, old.status),
      'required', 'a provision_tenant that has not begun, or an unfinished change_isolation'));
  end if;
  perform stratum.record_job(who, old, new, 'job.cancelled');
  return stratum.job_json(new);
end $$;
