CREATE TABLE "stratum"."custom_domains" (
	"tenant_id" uuid NOT NULL,
	"domain" text NOT NULL,
	"verified_at" timestamp with time zone,
	"checked_at" timestamp with time zone,
	"missing_since" timestamp with time zone,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "custom_domains_pkey" PRIMARY KEY("tenant_id","domain"),
	CONSTRAINT "custom_domains_domain_check" CHECK (octet_length("stratum"."custom_domains"."domain") <= 253 and "stratum"."custom_domains"."domain" ~ '^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$'),
	CONSTRAINT "custom_domains_missing_check" CHECK ("stratum"."custom_domains"."missing_since" is null or "stratum"."custom_domains"."verified_at" is not null)
);
--> statement-breakpoint
CREATE TABLE "stratum"."issuers" (
	"id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid,
	"issuer" text NOT NULL,
	"audience" text NOT NULL,
	"settings" jsonb NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "issuers_issuer_audience_key" UNIQUE("issuer","audience"),
	CONSTRAINT "issuers_size_check" CHECK (octet_length("stratum"."issuers"."settings"::text) <= 65536)
);
--> statement-breakpoint
CREATE TABLE "stratum"."public_suffixes" (
	"rule" text PRIMARY KEY NOT NULL
);
--> statement-breakpoint
CREATE TABLE "stratum"."tenant_external_ids" (
	"issuer" text NOT NULL,
	"external_id" text NOT NULL,
	"tenant_id" uuid NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "tenant_external_ids_pkey" PRIMARY KEY("issuer","external_id")
);
--> statement-breakpoint
ALTER TABLE "stratum"."custom_domains" ADD CONSTRAINT "custom_domains_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "stratum"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "stratum"."issuers" ADD CONSTRAINT "issuers_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "stratum"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "stratum"."tenant_external_ids" ADD CONSTRAINT "tenant_external_ids_tenant_id_fkey" FOREIGN KEY ("tenant_id") REFERENCES "stratum"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "custom_domains_verified_key" ON "stratum"."custom_domains" USING btree ("domain") WHERE "stratum"."custom_domains"."verified_at" is not null;--> statement-breakpoint
CREATE INDEX "issuers_tenant_id_idx" ON "stratum"."issuers" USING btree ("tenant_id","id");--> statement-breakpoint
CREATE INDEX "tenant_external_ids_tenant_id_idx" ON "stratum"."tenant_external_ids" USING btree ("tenant_id","issuer","external_id");