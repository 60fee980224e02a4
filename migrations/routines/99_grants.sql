-- Who may call what. The edge's role may call the operations and nothing else: it reads no table, so
-- not even a flaw in the Worker lets it alter the audit trail or read another tenant's rows. The
-- operations run as the owner of this schema, each with a pinned search path.
do $$
declare
  prefix text := coalesce(nullif(current_setting('stratum.role_prefix', true), ''), 'stratum_');
  routine regprocedure;
begin
  for routine in
    select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'stratum'::regnamespace
      and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
  loop
    execute format('revoke execute on function %s from public', routine);
  end loop;
  if exists (select from pg_roles where rolname = prefix || 'control') then
    execute format('grant usage on schema stratum to %I', prefix || 'control');
    for routine in
      select p.oid::regprocedure from pg_proc p
      where p.pronamespace = 'stratum'::regnamespace
        and (p.proname = 'authenticate' or p.proname in (select name from stratum.operations))
    loop
      execute format('grant execute on function %s to %I', routine, prefix || 'control');
    end loop;
  end if;
end $$;
