import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { buildPages } from '../../scripts/build-page.ts'
import { withoutGradients } from '../../scripts/inference-only.ts'
import { withProgram } from '../../src/bundle/repack.ts'
import { assertVerified, verifyBundle } from '../../src/bundle/verify.ts'
import { FolderFiles } from '../../src/host/files.ts'
import { readProgram } from '../../src/host/program.ts'
import { NexusModel } from '../../src/inference/nexus-model.ts'
import * as kernels from '../../src/kernels/wgsl.gen.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { text, tinyBundle, trainedRouter } from './tiny-bundle.ts'

const root = join(import.meta.dirname, '../..')
const build = () => execFileSync(process.execPath, [join(root, 'scripts/build-program.ts')], { stdio: 'inherit' })
// What its router was trained on.
const prompts = { add: ['abc', 'cab'], prose: ['123', '312'] }
let folder: string
let bundle: string

beforeAll(async () => {
  build()
  folder = await mkdtemp(join(tmpdir(), 'nexus-program-'))
  bundle = join(folder, 'nexus_bundle_v1')
  const router = await trainedRouter(gpu, prompts)
  const names = ['add', 'code', 'prose']
  const files = await withProgram(await tinyBundle({ names, restricted: ['code'], router }), readProgram())
  const onDisk = new FolderFiles(bundle)
  for (const path of await files.list()) await onDisk.write(path, await files.read(path))
  // The one package that a bundle needs; nothing else of this repository can be reached from there.
  await mkdir(join(folder, 'node_modules'))
  await symlink(join(root, 'node_modules/webgpu'), join(folder, 'node_modules/webgpu'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const networkless = [['unshare', '-r', '-n', '--'], ['unshare', '-n', '--'], []].find(
  ([command, ...flags]) => !command || spawnSync(command, [...flags, 'true']).status === 0,
)!

/** Runs the bundle's own command line, without a network where this system can do that. */
function run(...args: string[]) {
  const [command, ...rest] = [...networkless, process.execPath, join(bundle, 'bin/nexus_cli.mjs'), ...args]
  const { status, stdout, stderr } = spawnSync(command, rest, { cwd: folder, encoding: 'utf8', timeout: 60_000 })
  return { status, stdout, stderr }
}

test('a bundle answers by its own program, with webgpu alone and no network, as it does in this process', () =>
  withoutLeaks(async () => {
    const prompt = { prompt: 'abc', capability: 'add', maxTokens: 8 }
    using model = await NexusModel.load(bundle, { gpu })
    const want = await model.generate(prompt)
    const { status, stdout } = run('--prompt', 'abc', '--capability', 'add', '--max-tokens', '8')
    expect({ status, stdout }).toEqual({ status: 0, stdout: `${want.text}\n` })
    const { tokensPerSecond, ...answer } = JSON.parse(run('--prompt', 'abc', '--max-tokens', '2', '--json').stdout)
    expect(answer).toMatchObject({ text: want.text.slice(0, 2), capability: 'add', chosenBy: 'router', tokens: 2 })
    expect(tokensPerSecond).toBeGreaterThan(0)
    const other = JSON.parse(run('--prompt', '123', '--max-tokens', '2', '--json').stdout)
    expect(other).toMatchObject({ capability: 'prose', chosenBy: 'router' })
  }))

test('its program keeps to restrictions, says what is wrong and verifies itself', async () => {
  const closed = run('--prompt', 'abc', '--capability', 'code')
  expect(closed.status).toBe(1)
  expect(closed.stderr).toContain('load the bundle with enableRestricted')
  expect(run('--prompt', 'abc', '--capability', 'code', '--max-tokens', '2', '--enable-restricted').status).toBe(0)
  expect(run('--max-tokens', '2')).toMatchObject({ status: 2, stderr: expect.stringContaining('--prompt <text>') })
  expect(run('--prompt', 'a', '--seed', 'x').status).toBe(2)
  const path = join(bundle, 'LICENSE')
  const before = await readFile(path)
  await writeFile(path, text('MIX\n'))
  expect(run('--prompt', 'abc')).toMatchObject({ status: 4, stderr: expect.stringContaining('LICENSE was altered') })
  await writeFile(path, before)
})

test('neither the program nor the page of a bundle carries a kernel of a gradient', async () => {
  const names = Object.values(kernels).flatMap((kernel) => Object.values(kernel).map(({ entry }) => entry))
  const backward = names.filter((name) => name.includes('backward'))
  expect(backward.length).toBeGreaterThan(30)
  // Such a text has every entry point there is; the ones that run models are looked for in the same way.
  const functions = (text: string) => new Set(Array.from(text.matchAll(/\bfn (\w+)\(/g), ([, name]) => name))
  expect([...functions(readFileSync(join(root, 'src/kernels/wgsl.gen.ts'), 'utf8'))]).toEqual(
    expect.arrayContaining(names),
  )
  await buildPages(join(folder, 'pages'))
  const page = readFileSync(join(folder, 'pages/page/src/worker.js'), 'utf8')
  for (const text of [new TextDecoder().decode(readProgram().get('src/nexus.mjs')), page]) {
    const found = functions(text)
    expect([...found]).toEqual(expect.arrayContaining(['forward', 'forward_lora', 'rotate', 'choose']))
    expect([...found].filter((name) => name.includes('backward'))).toEqual([])
  }
  // The playground trains.
  const trained = functions(readFileSync(join(folder, 'pages/playground/src/worker.js'), 'utf8'))
  expect([...trained]).toEqual(expect.arrayContaining(['backward_lora', 'backward_q']))
})

test('gradients of ops are left out of code by their place in it', () => {
  const code =
    "const y = step.node('a', made(b, [c]), [x, '),'], (dy) => { return [f(dy, {}), `x, y)`]; }); more(y, z);"
  expect(withoutGradients(code)).toBe("const y = step.node('a', made(b, [c]), [x, '),'], \"none\"); more(y, z);")
  expect(() => withoutGradients("this.node('a', b)(c)")).toThrow('Cannot read this.node(')
})

test('the program is free of training, deterministic, and replaced as a whole', async () => {
  const first = readProgram()
  build()
  expect(readProgram()).toEqual(first)
  const plain = await tinyBundle()
  const files = await withProgram(plain, first)
  const again = await withProgram(files, first)
  expect((await assertVerified(again)).bundleId).not.toBe((await assertVerified(plain)).bundleId)
  expect((await again.list()).filter((path) => /^(bin|src)\//.test(path)).sort()).toEqual(
    [...first.keys()].filter((path) => path !== 'index.html').sort(),
  )
  const training = new Map([...first, ['src/extra.mjs', text('export const optimizer = 1')]])
  const report = await verifyBundle(await withProgram(plain, training))
  expect(report.checks.find(({ name }) => name === 'teacher-free')?.reason).toBe('src/extra.mjs speaks of optimizer')
})
