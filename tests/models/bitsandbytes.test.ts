import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import '../../src/kernels/add.ts'
import { quantizeNf4 } from '../../src/formats/nf4.ts'
import { parseSafetensors } from '../../src/formats/safetensors.ts'
import { toFloat32 } from '../../src/formats/tensor.ts'
import { convertModel } from '../../src/models/convert.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { openModel } from '../../src/models/open-model.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { tokenizer } from './family-files.ts'

// NF4 against bitsandbytes, both ways (tests/oracles/make-nf4.py).

interface Facts {
  readonly file: string
  readonly weights: Readonly<Record<string, string>>
  readonly logits: number[]
  readonly config?: object
}

const golden = join(import.meta.dirname, '../oracles/golden')
const models = JSON.parse(readFileSync(join(golden, 'bitsandbytes-models.json'), 'utf8')) as Record<string, Facts>
const work = mkdtempSync(join(tmpdir(), 'nexus-bitsandbytes-'))
afterAll(() => rmSync(work, { recursive: true, force: true }))
const sha256 = (data: NodeJS.ArrayBufferView) => createHash('sha256').update(data).digest('hex')

test.each(['f16', 'bf16'])('%s: codes and scales are those of bitsandbytes, byte for byte', (dtype) => {
  const { tensors } = parseSafetensors(new Uint8Array(readFileSync(join(golden, 'nf4.safetensors'))))
  const find = (name: string) => tensors.get(`${dtype}.${name}`)!
  const source = find('source')
  const plain = quantizeNf4(toFloat32(source), source.shape)
  expect(plain.scales).toEqual(toFloat32(find('absmax')))
  // The eighth row is zeros, which both write as the level that is zero.
  expect(plain.codes.subarray(7 * 32, 8 * 32)).toEqual(new Uint8Array(32).fill(0x77))
  expect(plain.codes).toEqual(find('codes').data.slice())

  const { scales } = quantizeNf4(toFloat32(source), source.shape, { doubleQuant: true })
  const [offset] = toFloat32(find('nested.offset'))
  expect(Math.abs(scales.offset / offset - 1)).toBeLessThan(1e-6)
  // The nested codes follow CUDA, the nearest; on a processor bitsandbytes looks them up in a coarser table.
  const theirs = find('nested.codes').data
  const others = scales.codes.filter((code, i) => code !== theirs[i])
  expect(scales.codes.length).toBe(300)
  expect(others.length).toBeLessThan(6)
  for (const [i, value] of toFloat32(find('nested.absmax')).entries())
    expect(Math.abs(scales.absmax[i] / value - 1)).toBeLessThan(1e-6)
})

/** A folder whose weights are a golden file. */
function folderOf(name: string, config: object | string): string {
  const folder = join(work, name)
  mkdirSync(folder)
  writeFileSync(join(folder, 'config.json'), typeof config === 'string' ? config : JSON.stringify(config))
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
  copyFileSync(join(golden, `bitsandbytes-${name}.safetensors`), join(folder, 'model.safetensors'))
  return folder
}

/** The weights and the logits of a folder are those that bitsandbytes makes of it. */
async function compare(folder: string, { weights, logits }: Facts): Promise<void> {
  await using files = await openModel(folder)
  for (const [name, hash] of Object.entries(weights)) expect(sha256(await files.weights.read(name)), name).toBe(hash)
  using model = await Decoder.open(gpu, files.weights)
  using step = gpu.step()
  const ids = Array.from({ length: 17 }, (_, i) => i + 3)
  const made = await step.read(model.forward(step, step.upload('u32', [1, 17], ids)))
  expectClose('logits', made.subarray(-logits.length), Float32Array.from(logits), 1e-4)
}

const dense = folderOf('dense', readFileSync(join(golden, 'bitsandbytes-dense.json'), 'utf8'))

test.each(['nf4', 'nf4-double', 'int8'] as const)('%s as Nexus writes it is what bitsandbytes loaded', (to) =>
  withoutLeaks(async () => {
    const folder = join(work, to)
    await convertModel(dense, folder, { to, rest: 'f32' })
    expect(sha256(readFileSync(join(folder, 'model.safetensors')))).toBe(models[to].file)
    await compare(folder, models[to])
  }),
)

test('what transformers quantised and saved gives its values and its logits', () =>
  withoutLeaks(async () => {
    const { transformers } = models
    const folder = folderOf('model', transformers.config!)
    expect(sha256(readFileSync(join(folder, 'model.safetensors')))).toBe(transformers.file)
    await compare(folder, transformers)
  }))
