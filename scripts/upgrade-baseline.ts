/**
 * Keeps a release for test/upgrade: its Worker, SDK, embedded class, runner and migrations, built from the commit
 * of the release and packed into `test/upgrade/baseline/release.tar.gz`, the same bytes for the same commit.
 *
 * usage: node scripts/upgrade-baseline.ts <commit or tag>
 */
import { execFile } from 'node:child_process'
import { cp, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'

const PROJECT = fileURLToPath(new URL('../', import.meta.url))
const BASELINE = new URL('../test/upgrade/baseline/release.tar.gz', import.meta.url)
/** What the tests of an upgrade do not use. */
const LEFT_OUT = ['cli', 'local', 'react', 'console']

const run = promisify(execFile)

/** Check the commit out into `directory` and compile sources and Workers side by side, as they import each other. */
async function build(commit: string, directory: string): Promise<string> {
  const archive = join(directory, 'commit.tar')
  await run('git', ['archive', '--output', archive, commit], { cwd: PROJECT })
  await run('tar', ['-xf', archive, '-C', directory])
  await symlink(join(PROJECT, 'node_modules'), join(directory, 'node_modules'))
  const release = join(directory, 'release')
  const compilerOptions = { rootDir: '.', outDir: release, declaration: false, removeComments: true }
  await writeFile(join(directory, 'tsconfig.release.json'), JSON.stringify({ extends: './tsconfig.build.json', compilerOptions, include: ['src', 'workers'] }))
  await run(join(PROJECT, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.release.json'], { cwd: directory })
  for (const folder of LEFT_OUT) await rm(join(release, 'src', folder), { recursive: true, force: true })
  await cp(join(directory, 'migrations'), join(release, 'migrations'), { recursive: true, filter: (path) => !/\/(meta|schema\.sql)$/.test(path) })
  await cp(join(directory, 'package.json'), join(release, 'package.json'))
  return release
}

async function main(commit: string) {
  const { stdout } = await run('git', ['rev-parse', '--verify', `${commit}^{commit}`], { cwd: PROJECT })
  const directory = await mkdtemp(join(tmpdir(), 'stratum-baseline-'))
  try {
    const release = await build(stdout.trim(), directory)
    await writeFile(join(release, 'COMMIT'), stdout)
    const plain = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--mode=u+rw,go=r']
    const packed = await run('tar', [...plain, '-C', release, '-cf', '-', '.'], { encoding: 'buffer', maxBuffer: 64 * 1024 * 1024 })
    const bytes = gzipSync(packed.stdout, { level: 9 })
    await writeFile(BASELINE, bytes)
    console.log(`wrote test/upgrade/baseline/release.tar.gz of ${stdout.trim()}, ${(bytes.byteLength / 1024).toFixed(0)} KiB`)
  } finally {
    await rm(directory, { recursive: true })
  }
}

const [commit] = process.argv.slice(2)
if (commit === undefined) {
  console.error('Say which release: node scripts/upgrade-baseline.ts <commit or tag>')
  process.exitCode = 1
} else await main(commit)
