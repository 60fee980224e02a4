CREATE TABLE "stratum"."api_keys" (
	"id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid,
	"name" text NOT NULL,
	"key_hash" text NOT NULL,
	"hint" text NOT NULL,
	"scopes" text[] NOT NULL,
	"expires_at" timestamp with time zone,
	"revoked_at" timestamp with time zone,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "api_keys_key_hash_key" UNIQUE("key_hash"),
	CONSTRAINT "api_keys_scopes_check" CHECK ("stratum"."api_keys"."scopes" <@ '{read,write,admin,"secrets:read"}' and cardinality("stratum"."api_keys"."scopes") > 0)
);
--> statement-breakpoint
CREATE TABLE "stratum"."audit_entries" (
	"tenant_id" uuid NOT NULL,
	"seq" bigint NOT NULL,
	"payload" text,
	"salt" text,
	"payload_hash" text NOT NULL,
	"previous_hash" text NOT NULL,
	"hash" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "audit_entries_pkey" PRIMARY KEY("tenant_id","seq")
);
--> statement-breakpoint
CREATE TABLE "stratum"."audit_heads" (
	"tenant_id" uuid PRIMARY KEY NOT NULL,
	"seq" bigint DEFAULT 0 NOT NULL,
	"hash" text DEFAULT repeat('0', 64) NOT NULL
);
--> statement-breakpoint
CREATE TABLE "stratum"."changes" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "stratum"."changes_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"xid" "xid8" DEFAULT pg_current_xact_id() NOT NULL,
	"kind" text NOT NULL,
	"ref" text NOT NULL,
	"nonce" uuid DEFAULT gen_random_uuid() NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "changes_kind_check" CHECK ("stratum"."changes"."kind" in ('subtree', 'host', 'principal', 'issuer', 'definitions', 'installation'))
);
--> statement-breakpoint
CREATE TABLE "stratum"."config_definitions" (
	"key" text PRIMARY KEY NOT NULL,
	"schema" jsonb NOT NULL,
	"default_value" jsonb,
	"description" text DEFAULT '' NOT NULL,
	"sensitive" boolean DEFAULT false NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "stratum"."config_entries" (
	"tenant_id" uuid NOT NULL,
	"key" text NOT NULL,
	"value" jsonb,
	"ciphertext" text,
	"data_key_id" uuid,
	"locked" boolean DEFAULT false NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "config_entries_pkey" PRIMARY KEY("tenant_id","key"),
	CONSTRAINT "config_entries_key_check" CHECK ("stratum"."config_entries"."key" ~ '^[A-Za-z][A-Za-z0-9_.:-]{0,254}$'),
	CONSTRAINT "config_entries_size_check" CHECK (octet_length("stratum"."config_entries"."value"::text) <= 65536 and octet_length("stratum"."config_entries"."ciphertext") <= 98304),
	CONSTRAINT "config_entries_value_check" CHECK (("stratum"."config_entries"."value" is null) <> ("stratum"."config_entries"."ciphertext" is null) and ("stratum"."config_entries"."ciphertext" is null) = ("stratum"."config_entries"."data_key_id" is null))
);
--> statement-breakpoint
CREATE TABLE "stratum"."config_history" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "stratum"."config_history_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"tenant_id" uuid NOT NULL,
	"key" text NOT NULL,
	"value" jsonb,
	"ciphertext" text,
	"data_key_id" uuid,
	"locked" boolean NOT NULL,
	"changed_at" timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
	"actor" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "stratum"."data_keys" (
	"tenant_id" uuid NOT NULL,
	"id" uuid NOT NULL,
	"master_key_id" text NOT NULL,
	"wrapped" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "data_keys_pkey" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "stratum"."definitions_lock" (
	"never" boolean
);
--> statement-breakpoint
CREATE TABLE "stratum"."idempotency_keys" (
	"principal" text NOT NULL,
	"operation" text NOT NULL,
	"key" text NOT NULL,
	"input_hash" text NOT NULL,
	"answer" jsonb,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "idempotency_keys_pkey" PRIMARY KEY("principal","operation","key")
);
--> statement-breakpoint
CREATE TABLE "stratum"."installation" (
	"singleton" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"reserved_subdomains" text[] DEFAULT '{www,api,admin,app,auth,login,mail,static,assets,cdn,docs,status,support,localhost}' NOT NULL,
	"definitions_version" bigint DEFAULT 0 NOT NULL,
	"strict_config" boolean DEFAULT false NOT NULL,
	"feed_epoch" uuid DEFAULT gen_random_uuid() NOT NULL,
	CONSTRAINT "installation_singleton" CHECK ("stratum"."installation"."singleton")
);
--> statement-breakpoint
CREATE TABLE "stratum"."operations" (
	"name" text PRIMARY KEY NOT NULL,
	"scope" text NOT NULL,
	"reach" jsonb NOT NULL,
	"also_scope" jsonb
);
--> statement-breakpoint
CREATE TABLE "stratum"."outbox" (
	"id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid,
	"type" text NOT NULL,
	"payload" jsonb NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "stratum"."permission_policies" (
	"id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL,
	"key" text NOT NULL,
	"value" jsonb NOT NULL,
	"mode" text NOT NULL,
	"revocation_mode" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "permission_policies_tenant_id_key_key" UNIQUE("tenant_id","key"),
	CONSTRAINT "permission_policies_key_check" CHECK ("stratum"."permission_policies"."key" ~ '^[A-Za-z][A-Za-z0-9_.:-]{0,254}$'),
	CONSTRAINT "permission_policies_size_check" CHECK (octet_length("stratum"."permission_policies"."value"::text) <= 65536),
	CONSTRAINT "permission_policies_mode_check" CHECK ("stratum"."permission_policies"."mode" in ('LOCKED', 'INHERITED', 'DELEGATED')),
	CONSTRAINT "permission_policies_revocation_mode_check" CHECK ("stratum"."permission_policies"."revocation_mode" in ('CASCADE', 'SOFT', 'PERMANENT'))
);
--> statement-breakpoint
CREATE TABLE "stratum"."structure_lock" (
	"never" boolean
);
--> statement-breakpoint
CREATE TABLE "stratum"."tenant_places" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "stratum"."tenant_places_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"tenant_id" uuid NOT NULL,
	"parent_id" uuid,
	"since" timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "stratum"."tenant_slugs" (
	"slug" text PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "stratum"."tenants" (
	"id" uuid PRIMARY KEY NOT NULL,
	"number" bigint GENERATED BY DEFAULT AS IDENTITY (sequence name "stratum"."tenants_number_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"parent_id" uuid,
	"path" "ltree" NOT NULL,
	"slug" text NOT NULL,
	"name" text NOT NULL,
	"status" text DEFAULT 'active' NOT NULL,
	"isolation_strategy" text DEFAULT 'SHARED_RLS' NOT NULL,
	"isolation_name" text,
	"provisioning_status" text DEFAULT 'ready' NOT NULL,
	"region_id" uuid,
	"sort_order" integer DEFAULT 0 NOT NULL,
	"metadata" jsonb DEFAULT '{}' NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	"deleted_at" timestamp with time zone,
	"suspended_with" uuid,
	"archived_with" uuid,
	CONSTRAINT "tenants_number_key" UNIQUE("number"),
	CONSTRAINT "tenants_path_key" UNIQUE("path"),
	CONSTRAINT "tenants_slug_key" UNIQUE("slug"),
	CONSTRAINT "tenants_isolation_name_key" UNIQUE("isolation_name"),
	CONSTRAINT "tenants_slug_check" CHECK ("stratum"."tenants"."slug" ~ '^[a-z][a-z0-9_]{0,62}$'),
	CONSTRAINT "tenants_name_check" CHECK (char_length("stratum"."tenants"."name") between 1 and 255),
	CONSTRAINT "tenants_status_check" CHECK ("stratum"."tenants"."status" in ('active', 'suspended', 'archived')),
	CONSTRAINT "tenants_isolation_strategy_check" CHECK ("stratum"."tenants"."isolation_strategy" in ('SHARED_RLS', 'SCHEMA_PER_TENANT', 'DB_PER_TENANT')),
	CONSTRAINT "tenants_provisioning_status_check" CHECK ("stratum"."tenants"."provisioning_status" in ('pending', 'provisioning', 'ready', 'failed')),
	CONSTRAINT "tenants_depth_check" CHECK (nlevel("stratum"."tenants"."path") <= 20),
	CONSTRAINT "tenants_label_check" CHECK (ltree2text(subpath("stratum"."tenants"."path", -1)) = to_hex("stratum"."tenants"."number")),
	CONSTRAINT "tenants_metadata_check" CHECK (jsonb_typeof("stratum"."tenants"."metadata") = 'object' and octet_length("stratum"."tenants"."metadata"::text) <= 16384),
	CONSTRAINT "tenants_deleted_at_check" CHECK (("stratum"."tenants"."status" = 'archived') = ("stratum"."tenants"."deleted_at" is not null))
);
--> statement-breakpoint
ALTER TABLE "stratum"."api_keys" ADD CONSTRAINT "api_keys_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "stratum"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "stratum"."config_entries" ADD CONSTRAINT "config_entries_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "stratum"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "stratum"."config_entries" ADD CONSTRAINT "config_entries_data_key_fkey" FOREIGN KEY ("tenant_id","data_key_id") REFERENCES "stratum"."data_keys"("tenant_id","id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "stratum"."config_history" ADD CONSTRAINT "config_history_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "stratum"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "stratum"."data_keys" ADD CONSTRAINT "data_keys_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "stratum"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "stratum"."permission_policies" ADD CONSTRAINT "permission_policies_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "stratum"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "stratum"."tenant_places" ADD CONSTRAINT "tenant_places_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "stratum"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "stratum"."tenants" ADD CONSTRAINT "tenants_parent_id_fkey" FOREIGN KEY ("parent_id") REFERENCES "stratum"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "api_keys_tenant_id_idx" ON "stratum"."api_keys" USING btree ("tenant_id","id");--> statement-breakpoint
CREATE INDEX "changes_xid_idx" ON "stratum"."changes" USING btree ("xid");--> statement-breakpoint
CREATE INDEX "config_history_tenant_id_key_idx" ON "stratum"."config_history" USING btree ("tenant_id","key","id");--> statement-breakpoint
CREATE INDEX "idempotency_keys_created_at_idx" ON "stratum"."idempotency_keys" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "outbox_tenant_id_idx" ON "stratum"."outbox" USING btree ("tenant_id","id");--> statement-breakpoint
CREATE INDEX "permission_policies_key_idx" ON "stratum"."permission_policies" USING btree ("key");--> statement-breakpoint
CREATE INDEX "tenant_places_tenant_id_idx" ON "stratum"."tenant_places" USING btree ("tenant_id","since");--> statement-breakpoint
CREATE INDEX "tenant_slugs_tenant_id_idx" ON "stratum"."tenant_slugs" USING btree ("tenant_id");--> statement-breakpoint
CREATE INDEX "tenants_children_idx" ON "stratum"."tenants" USING btree ("parent_id","sort_order","id");--> statement-breakpoint
CREATE INDEX "tenants_roots_idx" ON "stratum"."tenants" USING btree ("path") WHERE "stratum"."tenants"."parent_id" is null;--> statement-breakpoint
CREATE INDEX "tenants_suspended_with_idx" ON "stratum"."tenants" USING btree ("suspended_with") WHERE "stratum"."tenants"."suspended_with" is not null;--> statement-breakpoint
CREATE INDEX "tenants_archived_with_idx" ON "stratum"."tenants" USING btree ("archived_with") WHERE "stratum"."tenants"."archived_with" is not null;