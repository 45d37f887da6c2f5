import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { NetworkError, UsageError } from '../../src/core/errors.ts'
import { writeGguf } from '../../src/formats/gguf-write.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { planShards, shardIndexName } from '../../src/formats/shards.ts'
import { cpuTensor } from '../../src/formats/tensor.ts'
import { listStored, listUnfinished, openIncoming, removeStored, resolveModel } from '../../src/host/model-store.ts'
import { openModel } from '../../src/models/open-model.ts'
import { pullModel } from '../../src/models/pull.ts'
import { HubServer } from './hub-server.ts'

const teacher = join(import.meta.dirname, '../../models/tiny-teacher')
const read = (name: string) => new Uint8Array(readFileSync(join(teacher, name)))
const folderFiles = () => [
  ...['config.json', 'tokenizer.json', 'tokenizer_config.json'].map((name) => [name, read(name)] as const),
]
const gguf = writeGguf(
  new Map([['general.architecture', ['string', 'llama']]]),
  new Map([['a.weight', { type: 'F32', shape: [64], data: cpuTensor('F32', [64], new Float32Array(64)).data }]]),
)
const fast = {
  pause: 1,
  onProgress: ({ done }: { done: number }) => {
    if (done > 0) hub.cut(Infinity)
  },
}

const kept = { ...process.env }
let cache: string
let hub: HubServer
beforeAll(async () => {
  hub = await HubServer.start()
  process.env.HF_ENDPOINT = `${hub.url}/`
})
afterAll(() => {
  process.env = kept
  return hub.stop()
})
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), 'nexus-hub-'))
  process.env.NEXUS_MODELS = cache
  delete process.env.HF_TOKEN
  for (const map of [hub.models, hub.files, hub.trouble, hub.lies]) map.clear()
  hub.seen.length = 0
  hub.commit = 'a'.repeat(40)
})
afterEach(() => rmSync(cache, { recursive: true, force: true }))

test('a folder is pulled, opens by its name without the hub, is listed, and is deleted', async () => {
  hub.models.set(
    'someone/Tiny',
    new Map([
      ...folderFiles(),
      ['model.safetensors', read('model.safetensors')],
      ['README.md', new Uint8Array(5)],
      ['pytorch_model.bin', new Uint8Array(5)],
      ['onnx/model.safetensors', new Uint8Array(5)],
    ]),
  )
  const progress = new Set<string>()
  const { model, how } = await pullModel('someone/Tiny', { ...fast, onProgress: ({ task }) => progress.add(task) })
  expect(how).toBe('fetched')
  expect(progress).toContain('pull model.safetensors')
  expect(readdirSync(model.path).sort()).toEqual(
    ['config.json', 'model.safetensors', 'pulled.json', 'tokenizer.json', 'tokenizer_config.json'].sort(),
  )
  expect((await pullModel('someone/Tiny')).how).toBe('present')

  hub.trouble.set('/api/models/someone/Tiny/revision/main', { status: 500 })
  for (const name of ['someone/Tiny', 'tiny']) {
    await using opened = await openModel(await resolveModel(name))
    expect(opened.config.layers).toBe(6)
  }
  expect((await pullModel('someone/Tiny')).how).toBe('offline')
  expect((await listStored()).map(({ id }) => id)).toEqual(['someone/Tiny'])
  expect(await removeStored('tiny')).toMatchObject({ id: 'someone/Tiny' })
  expect(await listStored()).toEqual([])
  await expect(resolveModel('someone/Tiny')).rejects.toThrow(/nexus pull someone\/Tiny/)
  await expect(removeStored('tiny')).rejects.toThrow(UsageError)
  expect(existsSync(model.path)).toBe(false)
})

test('a stopped pull is unfinished, no model, and goes on: whole files are not fetched again', async () => {
  const { tensors } = parseSafetensors(read('model.safetensors'))
  const { files, index } = planShards(
    [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape })),
    1_000_000,
  )
  const shards = [...files].map(
    ([file, list]) => [file, writeSafetensors(new Map(list.map(({ name }) => [name, tensors.get(name)!])))] as const,
  )
  hub.models.set(
    'someone/sharded',
    new Map([
      ...folderFiles(),
      [shardIndexName, new TextEncoder().encode(index)],
      ...shards,
      ['consolidated.safetensors', new Uint8Array(9)],
    ]),
  )
  const at = (name: string) => `/someone/sharded/resolve/${hub.commit}/${name}`
  const last = shards.at(-1)![0]
  hub.trouble.set(at(last), { cutAfter: 200_000, cuts: 1, dies: true })
  await expect(pullModel('someone/sharded', fast)).rejects.toThrow(/503/)
  expect(await listStored()).toEqual([])
  await expect(resolveModel('someone/sharded')).rejects.toThrow(UsageError)
  expect((await listUnfinished()).map(({ id }) => id)).toEqual(['someone/sharded'])
  hub.trouble.clear()
  hub.seen.length = 0
  const { model } = await pullModel('someone/sharded', fast)
  expect(hub.seen.some(({ path }) => path === at(shards[0][0]))).toBe(false)
  expect(Number(hub.seen.find(({ path }) => path === at(last))!.range!.slice(6, -1))).toBeGreaterThan(0)
  expect(model.files.some(({ name }) => name === 'consolidated.safetensors')).toBe(false)
  await using opened = await openModel(model.path)
  expect(opened.weights.recipes.size).toBe(tensors.size)
  expect(await listUnfinished()).toEqual([])

  // A newer commit takes the old one's place; what did not change is not fetched.
  hub.commit = 'b'.repeat(40)
  hub.seen.length = 0
  hub.models.get('someone/sharded')!.set('tokenizer_config.json', new TextEncoder().encode('{}'))
  const newer = await pullModel('someone/sharded', fast)
  expect(newer.model.commit).toBe(hub.commit)
  expect(hub.seen.some(({ path }) => path.endsWith(last))).toBe(false)
  expect((await listStored()).length).toBe(1)
})

test('one GGUF file of several is chosen by a part of its name', async () => {
  hub.models.set(
    'someone/gguf',
    new Map([
      ['q/model-Q4_K_M.gguf', gguf],
      ['model-Q8_0.gguf', gguf],
      ['model-Q8_0-00001-of-00002.gguf', gguf],
    ]),
  )
  await expect(pullModel('someone/gguf')).rejects.toThrow(/--file:\n {2}model-Q4_K_M.gguf/)
  await expect(pullModel('someone/gguf', { file: 'Q5' })).rejects.toThrow(/no GGUF file is called Q5/)
  await expect(pullModel('someone/gguf', { file: 'Q8' })).rejects.toThrow(/more than one/)
  await expect(pullModel('someone/gguf', { file: '00001' })).rejects.toThrow(/split/)
  const { model } = await pullModel('someone/gguf', { file: 'q4_k_m' })
  expect(model.id).toBe('someone/gguf:model-Q4_K_M.gguf')
  expect(new Uint8Array(readFileSync(model.path))).toEqual(gguf)
  for (const name of ['someone/gguf', 'model-Q4_K_M', 'model-q4_k_m.gguf', 'someone/gguf:model-Q4_K_M.gguf'])
    expect(await resolveModel(name)).toBe(model.path)
  await pullModel(`${hub.url}/someone/gguf/blob/main/model-Q8_0.gguf`)
  await expect(resolveModel('someone/gguf')).rejects.toThrow(/several/)
  expect(await resolveModel('model-Q8_0')).toMatch(/model-Q8_0.gguf$/)
})

test('hostile names stay inside the cache', async () => {
  const inside = () => readdirSync(cache, { recursive: true, encoding: 'utf8' })
  for (const path of ['../../evil.gguf', '/etc/evil.gguf', '..\\evil.gguf', 'a/..', '.gguf', 'x\u001b[2J.gguf']) {
    hub.models.set('someone/evil', new Map([[path, gguf]]))
    await pullModel('someone/evil', fast).catch((error: Error) => expect(error).toBeInstanceOf(Error))
    expect(existsSync(join(cache, '../evil.gguf')) || existsSync(join(cache, '../../evil.gguf'))).toBe(false)
    expect(inside().every((name) => !name.includes('\u001b'))).toBe(true)
  }
  const index = new TextEncoder().encode('{"weight_map":{"a":"../../../evil.safetensors"}}')
  hub.models.set('someone/evil', new Map([...folderFiles(), [shardIndexName, index]]))
  await expect(pullModel('someone/evil', fast)).rejects.toThrow(/not a safetensors file beside it/)
  await expect(pullModel('https://example.org/x.bin')).rejects.toThrow(/must lead to a .gguf/)
  for (const id of ['../x', 'a/..', 'a/../b', '..', 'a/b/c', '/etc/x', 'a b/c'])
    await expect(pullModel(id, fast)).rejects.toThrow(UsageError)
  expect(await listStored().then((all) => all.filter(({ id }) => id !== 'someone/evil:evil.gguf'))).toEqual([])

  mkdirSync(join(cache, 'planted'))
  const record = { id: 'planted/x', from: '', pulledAt: '', files: [{ name: '../../outside', bytes: 1, sha256: '' }] }
  writeFileSync(join(cache, 'planted/pulled.json'), JSON.stringify(record))
  expect((await listStored()).some(({ id }) => id === 'planted/x')).toBe(false)
})

test('what does not hash right, or is no model, never counts as one', async () => {
  hub.models.set('someone/bad', new Map([['m.gguf', gguf]]))
  hub.lies.set('m.gguf', { lfs: { oid: 'f'.repeat(64), size: gguf.length, pointerSize: 1 } })
  await expect(pullModel('someone/bad', fast)).rejects.toThrow(/sha256/)
  hub.lies.clear()
  hub.lies.set('m.gguf', { lfs: undefined, size: 3 })
  await expect(pullModel('someone/bad', fast)).rejects.toThrow(/must have 3 bytes/)
  hub.lies.clear()
  hub.files.set('/page.gguf', new TextEncoder().encode('<html>'))
  await expect(pullModel(`${hub.url}/page.gguf`, fast)).rejects.toThrow(/is none.*does not begin with GGUF/)
  await expect(pullModel('someone/none', fast)).rejects.toThrow(NetworkError)
  await expect(pullModel('someone/none', fast)).rejects.toThrow(/no such model at main/)
  hub.models.set('someone/empty', new Map([['README.md', new Uint8Array(1)]]))
  await expect(pullModel('someone/empty', fast)).rejects.toThrow(/neither model.safetensors nor a GGUF/)
  expect(await listStored()).toEqual([])
})

test('a token goes to the hub alone, and a URL of another server never sees it', async () => {
  process.env.HF_TOKEN = 'not-in-the-usual-form'
  const elsewhere = await HubServer.start()
  hub.models.set('someone/private', new Map([['m.gguf', gguf]]))
  elsewhere.files.set('/cdn', gguf)
  elsewhere.files.set('/dir/m.gguf', gguf)
  hub.trouble.set(`/someone/private/resolve/${hub.commit}/m.gguf`, { redirect: `${elsewhere.url}/cdn` })
  await pullModel('someone/private', fast)
  const { model, how } = await pullModel(`${elsewhere.url}/dir/m.gguf?key=secret`, fast)
  await elsewhere.stop()
  expect(hub.seen.length).toBe(3)
  for (const { authorization } of hub.seen) expect(authorization).toBe('Bearer not-in-the-usual-form')
  expect(elsewhere.seen.map(({ authorization }) => authorization)).toEqual([undefined, undefined])
  expect(how).toBe('fetched')
  expect(readFileSync(join(model.path, '../pulled.json'), 'utf8')).not.toContain('secret')
  expect((await pullModel(`${elsewhere.url}/dir/m.gguf`)).how).toBe('present')
})

test('a path is copied; a GGUF file that lies in the cache has its name; two pulls of one model exclude each other', async () => {
  const { model } = await pullModel(teacher)
  expect(model.id).toBe('tiny-teacher')
  await using opened = await openModel(await resolveModel('tiny-teacher'))
  expect(opened.tokenizer.size).toBe(96)
  await expect(pullModel(join(teacher, 'config.json'))).rejects.toThrow(UsageError)
  writeFileSync(join(cache, 'loose.gguf'), gguf)
  expect(await resolveModel('loose')).toBe(join(cache, 'loose.gguf'))
  await removeStored('loose.gguf')
  expect(existsSync(join(cache, 'loose.gguf'))).toBe(false)

  const folder = (await openIncoming('someone/busy')).folder
  writeFileSync(join(folder, 'lock'), String(process.ppid))
  await expect(openIncoming('someone/busy')).rejects.toThrow(`process ${process.ppid} is pulling it`)
  writeFileSync(join(folder, 'lock'), '999999999')
  await (await openIncoming('someone/busy'))[Symbol.asyncDispose]()
  // What was pulled and lost a byte does not count as there.
  writeFileSync(join(model.path, 'config.json'), '{}')
  await expect(resolveModel('tiny-teacher')).rejects.toThrow(UsageError)
})
