import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { memorySource } from '../../src/formats/byte-source.ts'
import { parseGguf, readGgufRows } from '../../src/formats/gguf.ts'
import { writeGgufLora } from '../../src/formats/gguf-lora.ts'
import { type GgufTypedValue, writeGguf } from '../../src/formats/gguf-write.ts'
import { parseHuggingFaceConfig } from '../../src/formats/hugging-face-config.ts'
import { foldScale, readPeft, writePeft } from '../../src/formats/peft.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { cpuTensor, toFloat32 } from '../../src/formats/tensor.ts'
import { unpermuteHeads } from '../../src/formats/tensor-recipes.ts'

const golden = join(import.meta.dirname, '../oracles/golden')
const bytes = (name: string) => new Uint8Array(readFileSync(join(golden, name)))
const adapterBytes = bytes('peft/adapter_model.safetensors')
const adapter = parseSafetensors(adapterBytes).tensors
const configText = readFileSync(join(golden, 'peft/adapter_config.json'), 'utf8')
const config = JSON.parse(configText) as Record<string, unknown>
const base = parseSafetensors(bytes('peft/base.safetensors')).metadata

test('reads an adapter of PEFT: names, ranks by pattern, and the scales that PEFT computes', () => {
  const modules = readPeft(config, adapter)
  expect(modules.map(({ module, rank, a, b }) => [module, rank, a.shape, b.shape])).toEqual([
    ['model.layers.0.mlp.down_proj', 3, [3, 24], [16, 3]],
    ['model.layers.0.self_attn.k_proj', 4, [4, 16], [8, 4]],
    ['model.layers.0.self_attn.q_proj', 4, [4, 16], [16, 4]],
    ['model.layers.1.mlp.down_proj', 3, [3, 24], [16, 3]],
    ['model.layers.1.self_attn.k_proj', 4, [4, 16], [8, 4]],
    ['model.layers.1.self_attn.q_proj', 2, [2, 16], [16, 2]],
  ])
  const scales = JSON.parse(base.scales) as Record<string, number>
  for (const { module, scale } of modules) expect(scale).toBeCloseTo(scales[module], 12)
  expect(new Set(Object.values(scales)).size).toBe(4)
  expect(writeSafetensors(adapter, { format: 'pt' })).toEqual(adapterBytes)
})

/** scale · B · A of a module. */
function update({ a, b, rank, scale }: ReturnType<typeof readPeft>[number]): number[] {
  const [left, right] = [toFloat32(b), toFloat32(a)]
  const [rows, columns] = [b.shape[0], a.shape[1]]
  return Array.from({ length: rows * columns }, (_, at) => {
    let sum = 0
    for (let i = 0; i < rank; i++)
      sum += left[Math.floor(at / columns) * rank + i] * right[i * columns + (at % columns)]
    return scale * sum
  })
}

test.each(['uniform', 'native'] as const)('a %s export says the same with scale 1, in PEFT’s own words', (ranks) => {
  const modules = readPeft(config, adapter)
  const written = writePeft(modules, { ranks, layers: 2 })
  const again = readPeft(JSON.parse(written.config), written.tensors)
  expect(again.map(({ module }) => module)).toEqual(modules.map(({ module }) => module))
  expect(again.map(({ rank }) => rank)).toEqual(
    ranks === 'uniform' ? modules.map(() => 8) : modules.map(({ rank }) => rank),
  )
  for (const [i, module] of again.entries()) {
    expect(module.scale).toBe(1)
    const want = update(modules[i])
    for (const [at, value] of update(module).entries()) expect(Math.abs(value - want[at])).toBeLessThan(1e-6)
  }
  // Each line of the file is one that PEFT writes for a field of the same value.
  const changed = /"(alpha_pattern|rank_pattern|lora_alpha|r|use_rslora|target_modules)"/
  const lines = new Set(configText.split('\n').map((line) => line.replace(/,$/, '')))
  const fields = written.config.split('\n').filter((line) => /^ {2}"/.test(line) && !changed.test(line))
  expect(fields.length).toBeGreaterThan(15)
  for (const line of fields) expect(lines).toContain(line.replace(/,$/, ''))
  const keys = Object.keys(JSON.parse(written.config))
  expect(keys).toEqual([...keys].sort())
})

test('a native export names its modules by escaped paths, which match nothing else', () => {
  const written = writePeft(readPeft(config, adapter), { ranks: 'native', baseModel: 'naïve' })
  expect(written.config).toContain('"base_model_name_or_path": "na\\u00efve"')
  expect(written.config).toContain('"lora_dropout": 0.0,')
  const parsed = JSON.parse(written.config)
  expect(parsed.rank_pattern).toEqual({
    'model\\.layers\\.0\\.mlp\\.down_proj': 3,
    'model\\.layers\\.1\\.mlp\\.down_proj': 3,
    'model\\.layers\\.1\\.self_attn\\.q_proj': 2,
  })
  expect(parsed.alpha_pattern).toEqual(parsed.rank_pattern)
  expect(parsed.target_modules).toContain('model.layers.0.mlp.down_proj')
  expect(() => writePeft([], { ranks: 'native' })).toThrow('it has no modules')
})

test.each([
  [{ peft_type: 'IA3' }, 'peft_type'],
  [{ r: 0 }, 'r:'],
  [{ use_dora: true }, 'use_dora'],
  [{ bias: 'all' }, 'bias'],
  [{ modules_to_save: ['lm_head'] }, 'modules_to_save'],
  [{ rank_pattern: { '(a+)+': 3 } }, 'too complicated'],
  [{ rank_pattern: { '[': 3 } }, 'not a regular expression'],
  [{ rank_pattern: {} }, 'has rank 3, adapter_config.json says 4'],
])('an adapter_config.json with %j is refused', (changes, reason) => {
  expect(() => readPeft({ ...config, ...changes }, adapter)).toThrow(SyntaxError)
  expect(() => readPeft({ ...config, ...changes }, adapter)).toThrow(reason)
})

test('tensors that are no pairs are refused', () => {
  const [[name, tensor]] = adapter
  const b = name.replace('lora_A', 'lora_B')
  expect(() => readPeft(config, new Map())).toThrow('holds no tensors')
  expect(() => readPeft(config, new Map([[name, tensor]]))).toThrow('has no counterpart')
  expect(() => readPeft(config, new Map([['lm_head.weight', tensor]]))).toThrow('not lora_A or lora_B')
  expect(() =>
    readPeft(
      config,
      new Map([
        [name, tensor],
        [b, tensor],
      ]),
    ),
  ).toThrow('they must be (r, in) and (out, r)')
})

test('GGUF is written byte for byte as ggml’s own library writes it', () => {
  const { tensors } = parseGguf(bytes('small.gguf'))
  const metadata = new Map<string, GgufTypedValue>([
    ['general.architecture', ['string', 'llama']],
    ['a.u8', ['u8', 255]],
    ['a.i8', ['i8', -128]],
    ['a.u16', ['u16', 65535]],
    ['a.i16', ['i16', -32768]],
    ['a.u32', ['u32', 4294967295]],
    ['a.i32', ['i32', -2147483648]],
    ['a.f32', ['f32', 0.1]],
    ['a.u64', ['u64', 2n ** 64n - 1n]],
    ['a.i64', ['i64', -5n]],
    ['a.f64', ['f64', 0.1]],
    ['a.bool', ['bool', true]],
    ['a.string', ['string', '\ufeffnaïve 🙂']],
    ['a.strings', ['string', ['', 'a', 'é']]],
    ['a.integers', ['i32', [1, -2, 3]]],
    ['a.floats', ['f32', [0.5, -0.25]]],
    ['a.bools', ['bool', [true, false]]],
  ])
  const data = [...tensors].map(([name, { type, shape, offset, byteLength }]) => {
    return [name, { type, shape, data: bytes('small.gguf').subarray(offset, offset + byteLength) }] as const
  })
  expect(writeGguf(metadata, new Map(data))).toEqual(bytes('small.gguf'))
  const wrong = new Map([['x', { type: 'Q8_0', shape: [3, 31], data: new Uint8Array(3) } as const]])
  expect(() => writeGguf(new Map(), wrong)).toThrow('Cannot write x Q8_0 [3,31]')
})

test('an adapter as GGUF: names, alpha, scale in B, and rows of q and k in llama.cpp’s order', async () => {
  const modules = readPeft(config, adapter)
  const model = parseHuggingFaceConfig(JSON.parse(base.config))
  const file = writeGgufLora(modules, model, { name: 'test' })
  const { metadata, tensors } = parseGguf(file)
  expect(Object.fromEntries(metadata)).toEqual({
    ...{ 'general.architecture': 'llama', 'general.type': 'adapter', 'general.name': 'test' },
    ...{ 'adapter.type': 'lora', 'adapter.lora.alpha': 0 },
  })
  expect(tensors.get('blk.0.ffn_down.weight.lora_a')!.shape).toEqual([3, 24])
  expect(tensors.get('blk.1.attn_q.weight.lora_b')!.shape).toEqual([16, 2])
  const read = (name: string) => readGgufRows(memorySource(file), tensors.get(name)!)
  const q = modules.find(({ module }) => module === 'model.layers.1.self_attn.q_proj')!
  expect(unpermuteHeads(await read('blk.1.attn_q.weight.lora_b'), 2, 8)).toEqual(foldScale(q).b)
  expect(await read('blk.1.attn_q.weight.lora_b')).not.toEqual(foldScale(q).b)
  expect(await read('blk.1.attn_q.weight.lora_a')).toEqual(toFloat32(q.a))
  const down = modules.find(({ module }) => module === 'model.layers.1.mlp.down_proj')!
  expect(await read('blk.1.ffn_down.weight.lora_b')).toEqual(foldScale(down).b)

  const one = parseGguf(writeGgufLora([q], { ...model, family: 'qwen2' }, { dtype: 'F16' }))
  expect(one.metadata.get('adapter.lora.alpha')).toBe(2)
  expect(one.tensors.get('blk.1.attn_q.weight.lora_b')!.type).toBe('F16')
  expect(() => writeGgufLora([q], { ...model, family: 'phi3' })).toThrow('fuse q, k, v')
  const unknown = { ...q, module: 'model.layers.0.router', b: cpuTensor('F32', [16, 2], new Float32Array(32)) }
  expect(() => writeGgufLora([unknown], model)).toThrow('it is no tensor of a llama model')
})
