-- Generated from the contracts by `npm run generate`: what each operation asks of its caller.
-- stratum.authorize reads it; an operation without a row cannot run.
with rules (name, scope, reach) as (values
  ('archive_tenant', 'write', '[{"kind":"parent","field":"id"}]'),
  ('create_api_key', 'admin', '[{"kind":"tenant","field":"tenant_id"}]'),
  ('create_permission', 'write', '[{"kind":"tenant","field":"id"}]'),
  ('create_tenant', 'write', '[{"kind":"under","field":"parent_id"}]'),
  ('delete_config', 'write', '[{"kind":"tenant","field":"id"}]'),
  ('delete_permission', 'write', '[{"kind":"tenant","field":"id"}]'),
  ('delete_tenant', 'write', '[{"kind":"parent","field":"id"}]'),
  ('get_ancestors', 'read', '[{"kind":"tenant","field":"id"}]'),
  ('get_api_key', 'admin', '[{"kind":"api_key","field":"id"}]'),
  ('get_children', 'read', '[{"kind":"tenant","field":"id"}]'),
  ('get_config_inheritance', 'read', '[{"kind":"tenant","field":"id"}]'),
  ('get_context', 'read', '[]'),
  ('get_descendants', 'read', '[{"kind":"tenant","field":"id"}]'),
  ('get_health', 'admin', '[]'),
  ('get_root', 'read', '[{"kind":"tenant","field":"id"}]'),
  ('get_tenant', 'read', '[{"kind":"tenant","field":"id"}]'),
  ('get_tenant_by_slug', 'read', '[]'),
  ('get_tenant_context', 'admin', '[{"kind":"tenant","field":"id"}]'),
  ('list_api_keys', 'admin', '[{"kind":"tenant","field":"tenant_id"}]'),
  ('list_tenants', 'read', '[]'),
  ('move_tenant', 'write', '[{"kind":"parent","field":"id"},{"kind":"under","field":"new_parent_id"}]'),
  ('resolve', 'read', '[]'),
  ('resolve_config', 'read', '[{"kind":"tenant","field":"id"}]'),
  ('resolve_permissions', 'read', '[{"kind":"tenant","field":"id"}]'),
  ('resume_tenant', 'write', '[{"kind":"parent","field":"id"}]'),
  ('revoke_api_key', 'admin', '[{"kind":"api_key","field":"id"}]'),
  ('set_config', 'write', '[{"kind":"tenant","field":"id"}]'),
  ('suspend_tenant', 'write', '[{"kind":"parent","field":"id"}]'),
  ('update_permission', 'write', '[{"kind":"tenant","field":"id"}]'),
  ('update_tenant', 'write', '[{"kind":"tenant","field":"id"}]')
), written as (
  insert into stratum.operations (name, scope, reach) select name, scope, reach::jsonb from rules
  on conflict (name) do update set scope = excluded.scope, reach = excluded.reach
)
delete from stratum.operations where name not in (select name from rules);
