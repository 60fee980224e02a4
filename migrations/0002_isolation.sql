CREATE TABLE "stratum"."fleet_migrations" (
	"position" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "stratum"."fleet_migrations_position_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"name" text NOT NULL,
	"hash" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "fleet_migrations_name_key" UNIQUE("name")
);
--> statement-breakpoint
CREATE TABLE "stratum"."fleet_places" (
	"tenant_id" uuid NOT NULL,
	"migration" text DEFAULT '' NOT NULL,
	"status" text DEFAULT 'current' NOT NULL,
	"error" jsonb,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "fleet_places_pkey" PRIMARY KEY("tenant_id"),
	CONSTRAINT "fleet_places_status_check" CHECK ("stratum"."fleet_places"."status" in ('current', 'migrating', 'failed'))
);
--> statement-breakpoint
CREATE TABLE "stratum"."isolation_changes" (
	"id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL,
	"job_id" uuid NOT NULL,
	"from_strategy" text NOT NULL,
	"from_name" text,
	"to_strategy" text NOT NULL,
	"to_name" text,
	"phase" text DEFAULT 'preparing' NOT NULL,
	"progress" jsonb DEFAULT '{}' NOT NULL,
	"cancel_requested" boolean DEFAULT false NOT NULL,
	"fenced_ms" integer,
	"error" jsonb,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"finished_at" timestamp with time zone,
	"source_kept_until" timestamp with time zone,
	"source_dropped_at" timestamp with time zone,
	CONSTRAINT "isolation_changes_phase_check" CHECK ("stratum"."isolation_changes"."phase" in ('preparing', 'copying', 'catching_up', 'verifying', 'fenced', 'done', 'failed', 'cancelled'))
);
--> statement-breakpoint
CREATE TABLE "stratum"."jobs" (
	"id" uuid PRIMARY KEY NOT NULL,
	"task" text NOT NULL,
	"tenant_id" uuid,
	"payload" jsonb DEFAULT '{}' NOT NULL,
	"status" text DEFAULT 'queued' NOT NULL,
	"attempts" integer DEFAULT 0 NOT NULL,
	"error" jsonb,
	"progress" jsonb,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"started_at" timestamp with time zone,
	"finished_at" timestamp with time zone,
	CONSTRAINT "jobs_status_check" CHECK ("stratum"."jobs"."status" in ('queued', 'running', 'succeeded', 'failed', 'cancelled'))
);
--> statement-breakpoint
CREATE TABLE "stratum"."managed_tables" (
	"table_name" text PRIMARY KEY NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "stratum"."tenant_databases" (
	"database_name" text PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL,
	"working_name" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "stratum"."isolation_changes" ADD CONSTRAINT "isolation_changes_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "stratum"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "isolation_changes_unfinished_key" ON "stratum"."isolation_changes" USING btree ("tenant_id") WHERE "stratum"."isolation_changes"."finished_at" is null;--> statement-breakpoint
CREATE INDEX "isolation_changes_tenant_id_idx" ON "stratum"."isolation_changes" USING btree ("tenant_id","id");--> statement-breakpoint
CREATE INDEX "jobs_tenant_id_idx" ON "stratum"."jobs" USING btree ("tenant_id","id");--> statement-breakpoint
CREATE INDEX "tenant_databases_tenant_id_idx" ON "stratum"."tenant_databases" USING btree ("tenant_id");