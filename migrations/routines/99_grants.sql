-- Who may call what. The edge's role may call the operations and nothing else: it reads no table, alters no audit
-- entry and makes no object, whatever it sends. It is trusted to say who asks, as it verified the token, so its
-- connection string is worth as much as a global admin's key. The operations run as the owner of this schema, each
-- with a pinned search path.
--
-- The roles of an installation are one family: where stratum_owner owns the schema, stratum_control is its
-- edge's role. Roles are of the whole server, so the name alone would open this database to another's.
do $$
declare
  control name := (
    select r.rolname from pg_namespace n join pg_roles o on o.oid = n.nspowner join pg_roles r on r.rolname = regexp_replace(o.rolname, 'owner$', 'control')
    where n.nspname = 'stratum' and o.rolname <> r.rolname);
  routine regprocedure;
begin
  for routine in
    select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'stratum'::regnamespace
      and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
  loop
    execute format('revoke execute on function %s from public', routine);
  end loop;
  if control is not null then
    execute format('grant usage on schema stratum to %I', control);
    for routine in
      select p.oid::regprocedure from pg_proc p
      where p.pronamespace = 'stratum'::regnamespace
        and (p.proname in ('authenticate', 'run_once', 'dry_run', 'run_if_match', 'read_config_definitions', 'read_stored_config', 'read_changes', 'visit_tenant', 'read_issuer') or p.proname in (select name from stratum.operations))
    loop
      execute format('grant execute on function %s to %I', routine, control);
    end loop;
  end if;
end $$;
