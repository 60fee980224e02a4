import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { canonical } from '../support/json.ts'
import { plantLine, plantTree, refusal, uniqueSlug } from '../support/tree.ts'

const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

describe('creating a tenant', () => {
  it('answers a root with every field, defaults filled in', async () => {
    const before = Date.now()
    const root = await admin.createTenant({ slug: 'acme_sec', name: 'AcmeSec' })

    expect(root).toEqual({
      id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/),
      parent_id: null,
      slug: 'acme_sec',
      subdomain: 'acme-sec',
      name: 'AcmeSec',
      status: 'active',
      isolation_strategy: 'SHARED_RLS',
      isolation_name: null,
      provisioning_status: 'ready',
      region_id: null,
      depth: 0,
      ancestry_path: '/',
      ancestor_ids: [],
      sort_order: 0,
      metadata: {},
      created_at: expect.stringMatching(ISO),
      updated_at: root.created_at,
      deleted_at: null,
    })
    expect(Date.parse(root.created_at)).toBeGreaterThanOrEqual(before - 1)
    expect(Date.parse(root.created_at)).toBeLessThanOrEqual(Date.now() + 1)
  })

  it('places a tenant below its ancestors, root first', async () => {
    const { a, b, c } = await plantTree(admin, { a: null, b: 'a', c: 'b' })

    expect(b).toMatchObject({ parent_id: a.id, depth: 1, ancestry_path: `/${a.id}`, ancestor_ids: [a.id] })
    expect(c).toMatchObject({ parent_id: b.id, depth: 2, ancestry_path: `/${a.id}/${b.id}`, ancestor_ids: [a.id, b.id] })
  })

  it('keeps metadata as given, whatever JSON it holds', async () => {
    const metadata = JSON.parse('{"plan":"gold","n":[1,-2.5e-7,null,true],"ключ":{"a":{"😀":""}},"constructor":"c","__proto__":{"deep":1},"":0}')
    const created = await admin.createTenant({ slug: uniqueSlug(), name: 'M', metadata })

    expect(canonical(created.metadata)).toBe(canonical(metadata))
    expect(canonical((await admin.getTenant({ id: created.id })).metadata)).toBe(canonical(metadata))
  })

  it('answers what getting it by id and by slug answers', async () => {
    const { child } = await plantTree(admin, { parent: null, child: 'parent' })

    expect(await admin.getTenant({ id: child.id })).toEqual(child)
    expect(await admin.getTenant({ id: child.id.toUpperCase() })).toEqual(child)
    expect(await admin.getTenantBySlug({ slug: child.slug })).toEqual(child)
  })

  it('is refused for strategies that need the provisioner where there is none, with advice', async () => {
    const bare = await createInstallation()
    await bare.owner.query('drop schema graphile_worker cascade')
    const client = await bare.clientFor(null)
    const error = await refusal(client.createTenant({ slug: uniqueSlug(), name: 'S', isolation_strategy: 'SCHEMA_PER_TENANT' }), 'PROVISIONING_UNAVAILABLE')
    expect(error.message).toContain('npx stratum setup')
    await bare.close()
  })

  it('under an unknown parent, or one out of reach, is refused alike', async () => {
    const { mine, theirs } = await plantTree(admin, { mine: null, theirs: null })
    const bound = await installation.clientFor(mine.id)

    const unknown = await refusal(bound.createTenant({ slug: uniqueSlug(), name: 'X', parent_id: randomUUID() }), 'TENANT_NOT_FOUND')
    const foreign = await refusal(bound.createTenant({ slug: uniqueSlug(), name: 'X', parent_id: theirs.id }), 'TENANT_NOT_FOUND')
    expect(foreign.message).toBe(unknown.message)
    await refusal(bound.createTenant({ slug: uniqueSlug(), name: 'X' }), 'GLOBAL_ADMIN_REQUIRED')
  })

  it('refuses what a contract does not know or allow', async () => {
    const given = { slug: uniqueSlug(), name: 'X' }
    const post = async (body: object) => {
      const headers = { 'x-api-key': await installation.apiKey(null), 'content-type': 'application/json' }
      return installation.fetch(new Request('http://stratum.test/api/v1/tenants', { method: 'POST', headers, body: JSON.stringify(body) }))
    }
    for (const wrong of [{ status: 'suspended' }, { region_id: null }, { name: '' }, { name: 'x'.repeat(256) }, { name: 7 }, { name: 'a\u0000' }]) {
      expect((await post({ ...given, ...wrong })).status, JSON.stringify(wrong)).toBe(422)
    }
    for (const wrong of [{ parent_id: 'root' }, { isolation_strategy: 'NONE' }, { metadata: [] }, { metadata: null }]) {
      expect((await post({ ...given, ...wrong })).status, JSON.stringify(wrong)).toBe(422)
    }
    for (const wrong of [{ metadata: { a: '\ud800' } }, { metadata: { 'a\u0000': 1 } }, { metadata: { a: 'x'.repeat(65_535) } }]) {
      expect((await post({ ...given, ...wrong })).status, JSON.stringify(wrong)).toBe(422)
    }
    await refusal(admin.getTenantBySlug({ slug: given.slug }), 'TENANT_NOT_FOUND')
  })

  it('takes names of 1 to 255 characters, counted as people count them', async () => {
    for (const name of ['x', 'x'.repeat(255), '😀'.repeat(255), ' Ünïcödé ']) {
      expect((await admin.createTenant({ slug: uniqueSlug(), name })).name).toBe(name)
    }
    await refusal(admin.createTenant({ slug: uniqueSlug(), name: '😀'.repeat(256) }), 'VALIDATION_FAILED')
  })
})

describe('slugs and subdomains', () => {
  it.each([
    ['a', 'a'],
    ['north_star_msp', 'north-star-msp'],
    ['x9', 'x9'],
    ['z'.repeat(63), 'z'.repeat(63)],
    ['a_', null],
    ['abc__', null],
    ['xn__name', null],
    ['ab__c', null],
    ['a__b', 'a--b'],
    ['abc__d', 'abc--d'],
    ['www', null],
    ['api', null],
    ['admin', null],
    ['www_', null],
    ['adminx', 'adminx'],
  ])('the subdomain of %s is %s', async (slug, subdomain) => {
    expect(await admin.createTenant({ slug, name: slug })).toMatchObject({ slug, subdomain })
  })

  it.each(['Acme', 'a-b', '1a', '_a', '', 'a b', 'ä', 'a.b', 'a'.repeat(64), 'a\n'])('refuses the slug %j', async (slug) => {
    const error = await refusal(admin.createTenant({ slug, name: 'X' }), 'VALIDATION_FAILED')
    expect(error.message).toContain('slug')
  })

  it('reserves what the installation says it reserves', async () => {
    await installation.owner.query(`update stratum.installation set reserved_subdomains = reserved_subdomains || '{my-shop}'`)
    expect((await admin.createTenant({ slug: 'my_shop', name: 'Shop' })).subdomain).toBeNull()
  })

  it('are unique in the installation, out of reach and archived tenants included', async () => {
    const { one, two } = await plantTree(admin, { one: null, two: null })
    const bound = await installation.clientFor(one.id)

    const error = await refusal(bound.createTenant({ slug: two.slug, name: 'X', parent_id: one.id }), 'TENANT_SLUG_TAKEN')
    expect(error.message).toContain(two.slug)
    await admin.archiveTenant({ id: two.id })
    await refusal(admin.createTenant({ slug: two.slug, name: 'X' }), 'TENANT_SLUG_TAKEN')
  })

  it('stay with the tenant that had them: renamed, it answers to the new one only, and no other gets the old', async () => {
    const { tenant } = await plantTree(admin, { tenant: null })
    const slug = uniqueSlug('renamed_to_')
    const renamed = await admin.updateTenant({ id: tenant.id, slug })

    expect(renamed).toEqual({ ...tenant, slug, subdomain: slug.replaceAll('_', '-'), updated_at: renamed.updated_at })
    await refusal(admin.getTenantBySlug({ slug: tenant.slug }), 'TENANT_NOT_FOUND')
    expect((await admin.getTenantBySlug({ slug })).id).toBe(tenant.id)
    const { other } = await plantTree(admin, { other: null })
    await refusal(admin.createTenant({ slug: tenant.slug, name: 'Heir' }), 'TENANT_SLUG_TAKEN')
    await refusal(admin.updateTenant({ id: other.id, slug: tenant.slug }), 'TENANT_SLUG_TAKEN')
    expect((await admin.updateTenant({ id: tenant.id, slug: tenant.slug })).slug).toBe(tenant.slug)
  })
})

describe('updating a tenant', () => {
  it('changes what is given, replaces metadata whole and leaves the rest', async () => {
    const created = await admin.createTenant({ slug: uniqueSlug(), name: 'Before', metadata: { a: 1, b: 2 } })

    const named = await admin.updateTenant({ id: created.id, name: 'After' })
    expect(named).toEqual({ ...created, name: 'After', updated_at: named.updated_at })
    expect(named.updated_at >= created.updated_at).toBe(true)
    const described = await admin.updateTenant({ id: created.id, metadata: { c: 3 } })
    expect(described).toEqual({ ...named, metadata: { c: 3 }, updated_at: described.updated_at })
    expect(await admin.getTenant({ id: created.id })).toEqual(described)
  })

  it('to a slug that is taken is refused, to its own is not', async () => {
    const { one, two } = await plantTree(admin, { one: null, two: null })

    await refusal(admin.updateTenant({ id: one.id, slug: two.slug, name: 'Changed' }), 'TENANT_SLUG_TAKEN')
    expect(await admin.getTenant({ id: one.id })).toEqual(one)
    expect((await admin.updateTenant({ id: one.id, slug: one.slug })).slug).toBe(one.slug)
  })

  it('out of reach or unknown is not found, and malformed is 400', async () => {
    const { mine, theirs } = await plantTree(admin, { mine: null, theirs: null })
    const bound = await installation.clientFor(mine.id)

    await refusal(bound.updateTenant({ id: theirs.id, name: 'X' }), 'TENANT_NOT_FOUND')
    await refusal(bound.getTenant({ id: theirs.id }), 'TENANT_NOT_FOUND')
    await refusal(bound.getTenantBySlug({ slug: theirs.slug }), 'TENANT_NOT_FOUND')
    await refusal(admin.getTenant({ id: randomUUID() }), 'TENANT_NOT_FOUND')
    await refusal(admin.getTenant({ id: 'not-a-uuid' }), 'INVALID_REQUEST')
    await refusal(admin.getTenantBySlug({ slug: 'Not-A-Slug' }), 'INVALID_REQUEST')
  })
})

describe('depth', () => {
  it('allows twenty levels and refuses the twenty-first', async () => {
    const line = await plantLine(admin, 20)
    const deepest = line[19]

    expect(deepest).toMatchObject({ depth: 19, ancestor_ids: line.slice(0, 19).map(({ id }) => id) })
    const error = await refusal(admin.createTenant({ slug: uniqueSlug(), name: 'X', parent_id: deepest?.id ?? null }), 'TENANT_DEPTH_EXCEEDED')
    expect(error.details).toMatchObject({ maximum: 20, levels: 21 })
  })
})

describe('deleting a tenant', () => {
  it('archives it: it stays readable by id, with the time it was deleted', async () => {
    const { tenant } = await plantTree(admin, { tenant: null })
    const deleted = await admin.deleteTenant({ id: tenant.id })

    expect(deleted).toEqual({ ...tenant, status: 'archived', deleted_at: expect.stringMatching(ISO), updated_at: deleted.updated_at })
    expect(await admin.getTenant({ id: tenant.id })).toEqual(deleted)
    await refusal(admin.getTenant({ id: tenant.id, include_archived: false }), 'TENANT_ARCHIVED')
    await refusal(admin.deleteTenant({ id: tenant.id }), 'TENANT_INVALID_STATE')
  })
})

describe('organizations', () => {
  it('are the roots: made, listed and got by the embedded class', async () => {
    const { stratum } = installation
    const organization = await stratum.createOrganization({ slug: uniqueSlug('org'), name: 'Org' })
    const below = await stratum.createTenant({ slug: uniqueSlug('below'), name: 'Below', parent_id: organization.id })

    expect(organization).toMatchObject({ parent_id: null, depth: 0 })
    expect(await stratum.getOrganization(organization.id)).toEqual(organization)
    await refusal(stratum.getOrganization(below.id), 'TENANT_NOT_FOUND')
    const listed = (await stratum.listOrganizations({ limit: 100 })).data
    expect(listed.every((tenant) => tenant.parent_id === null)).toBe(true)
    expect(listed.map((tenant) => tenant.id)).toContain(organization.id)
  })
})
