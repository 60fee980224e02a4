ALTER TABLE "stratum"."config_history" ALTER COLUMN "tenant_id" DROP NOT NULL;--> statement-breakpoint
ALTER TABLE "stratum"."idempotency_keys" ADD COLUMN "tenant_ids" uuid[] DEFAULT '{}' NOT NULL;--> statement-breakpoint
CREATE INDEX "idempotency_keys_tenant_ids_idx" ON "stratum"."idempotency_keys" USING gin ("tenant_ids") WITH (fastupdate=false);
--> statement-breakpoint
-- What is remembered already names its tenants, too.
UPDATE "stratum"."idempotency_keys" k SET "tenant_ids" = array(
  SELECT DISTINCT named.id[1]::uuid FROM regexp_matches(concat_ws(' ', k.principal::jsonb ->> 3, k.answer::text), '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'g') AS named (id));
--> statement-breakpoint
-- Defaults so far hold, as far back as can be told.
INSERT INTO "stratum"."config_history" ("tenant_id", "key", "value", "locked", "changed_at", "actor")
SELECT NULL, d.key, d.default_value, false, d.updated_at, '{"type": "system", "id": "migration", "scopes": []}'
FROM "stratum"."config_definitions" d WHERE d.default_value IS NOT NULL;
