import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { define } from '../../bench/cases/case.ts'
import { ratesOf } from '../../bench/ceilings.ts'
import { checkCase, slopeError } from '../../bench/check.ts'
import { compareFiles } from '../../bench/compare.ts'
import { errorOf } from '../../bench/error.ts'
import { powerOf } from '../../bench/growth.ts'
import { peerCases } from '../../bench/peers/cases.ts'
import { check, duel, type Side } from '../../bench/peers/duel.ts'
import { dequantizeInt4, quantizeInt4 } from '../../bench/peers/int4.ts'
import { writeModel } from '../../bench/peers/onnx.ts'
import { prepareOurs } from '../../bench/peers/ours.ts'
import { PeerProcess } from '../../bench/peers/process.ts'
import { type BenchFile, readBenchFile } from '../../bench/report.ts'
import { apart, timingOf } from '../../bench/timing.ts'
import { Random } from '../../src/core/random.ts'
import { mul } from '../../src/kernels/elementwise.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const folder = mkdtempSync(join(tmpdir(), 'nexus-bench-'))
afterAll(() => rmSync(folder, { recursive: true }))

const ceilings = {
  copyGBs: 10,
  f32GFLOPs: 100,
  f16GFLOPs: null,
  dispatchMicroseconds: 20,
  recordMicroseconds: 5,
  replayMicroseconds: 2,
  matrixUnits: [],
}

function fileWith(ms: number, quartiles: [number, number], name = 'add'): BenchFile {
  return {
    format: 'nexus-bench-2',
    host: 'Node 24',
    adapter: 'a',
    driver: { vendor: '', architecture: '', device: '', description: '', manifest: null },
    toggles: { enabled: [], disabled: [] },
    date: '2026-01-01',
    quick: false,
    ceilings,
    results: [{ name, ms, quartiles, samples: 20, error: 1e-7, gflops: 1, gbs: 1, r: 1, bound: 'memory' }],
    wrong: [],
    peers: {},
    comparisons: [],
  }
}

describe('timing', () => {
  test('median and quartiles lie between samples', () => {
    expect(timingOf([4, 1, 3, 2])).toEqual({ median: 2.5, quartiles: [1.75, 3.25], samples: 4 })
    expect(timingOf([7])).toEqual({ median: 7, quartiles: [7, 7], samples: 1 })
  })

  test('ranges are apart only when they share nothing', () => {
    expect(apart([1, 2], [3, 4])).toBe(true)
    expect(apart([3, 4], [1, 2])).toBe(true)
    expect(apart([1, 3], [3, 4])).toBe(false)
  })

  test('the nearer ceiling decides R', () => {
    // 1e9 operations take 10 ms at 100 GFLOP/s, 2e7 bytes 2 ms at 10 GB/s.
    expect(ratesOf({ flops: 1e9, bytes: 2e7 }, 20, ceilings)).toEqual({ gflops: 50, gbs: 1, r: 0.5, bound: 'compute' })
    expect(ratesOf({ flops: 0, bytes: 2e7 }, 4, ceilings)).toMatchObject({ r: 0.5, bound: 'memory' })
  })

  test('the power of a growing cost', () => {
    expect(powerOf([1, 2, 4], [3, 6, 12])).toBeCloseTo(1)
    expect(powerOf([1, 2, 4], [3, 12, 48])).toBeCloseTo(2)
  })

  test('both sides run by turns, as often', async () => {
    const turns: string[] = []
    const side = (name: string): Side => ({
      read: async () => [],
      time: async (count) => {
        turns.push(`${name}${count}`)
        return new Array(count).fill(1)
      },
    })
    const { ours, theirs } = await duel(side('a'), side('b'), { rounds: 2, runs: 3, mostFlops: 1 })
    expect(turns.join(' ')).toBe('a2 b2 a3 b3 b3 a3 a3 b3 b3 a3')
    expect([ours.length, theirs.length]).toEqual([12, 12])
  })
})

function written(file: BenchFile): string {
  const path = join(folder, 'later.json')
  writeFileSync(path, JSON.stringify(file))
  return path
}

describe('bench files', () => {
  const write = (name: string, text: string) => {
    const path = join(folder, name)
    writeFileSync(path, text)
    return path
  }

  test('are read back as written', () => {
    const file = fileWith(2, [1, 3])
    expect(readBenchFile(write('good.json', JSON.stringify(file)))).toEqual(file)
  })

  test('that are none are refused with the reason', () => {
    expect(() => readBenchFile(join(folder, 'missing.json'))).toThrow(/Cannot read the bench file .*missing/)
    expect(() => readBenchFile(write('text.json', 'no'))).toThrow(SyntaxError)
    expect(() => readBenchFile(write('other.json', '{"format":"other"}'))).toThrow('as a bench file: format')
  })

  test('compare by ratio, with a star where the ranges are apart', () => {
    const lines = (b: BenchFile) => compareFiles(fileWith(2, [1, 3]), b).split('\n')
    const lineOfAdd = (b: BenchFile) => lines(b).find((line) => line.startsWith('add'))
    expect(lineOfAdd(fileWith(5, [4, 6]))).toMatch(/2\.000 +5\.000 +2\.50 +\*$/)
    expect(lineOfAdd(fileWith(3, [2, 4]))).toMatch(/1\.50$/)
    expect(() => compareFiles(fileWith(1, [1, 1]), fileWith(1, [1, 1], 'mul'))).toThrow('no op in common')
  })
})

test('a comparison shows ours beside peers, the peers, and what was wrong', () => {
  const timing = (median: number) => ({ median, quartiles: [median, median] as [number, number], samples: 8 })
  const file = (ours: number, theirs: number): BenchFile => ({
    ...fileWith(1, [1, 1]),
    comparisons: [
      {
        name: 'mul',
        error: 1e-7,
        ours: { ...timing(ours), gflops: 1, gbs: 1, r: 1, bound: 'memory' },
        outcomes: {
          ort: { status: 'timed', error: 1e-7, ours: timing(ours), theirs: timing(theirs) },
          tfjs: { status: 'wrong', error: null },
        },
      },
    ],
  })
  const later = { ...file(4, 3), wrong: [{ name: 'sub', error: null, gradientError: 0.5 }] }
  const lines = compareFiles(file(2, 6), readBenchFile(written(later))).split('\n')
  expect(lines.find((line) => line.startsWith('mul, beside peers'))).toMatch(/2\.000 +4\.000 +2\.00 +\*$/)
  expect(lines.find((line) => line.startsWith('mul, ort'))).toMatch(/6\.000 +3\.000 +0\.50 +\*$/)
  expect(lines.at(-1)).toBe('sub is wrong in b')
})

describe('checks', () => {
  const want = { data: Float64Array.of(0, -4, 1, -4) }

  test('the error is relative to the largest magnitude', () => {
    expect(errorOf([0, -4, 1, -3], want)).toBe(0.25)
    expect(errorOf([0, -4, 1, -4], want)).toBe(0)
    expect(errorOf([0], { data: Float64Array.of(0) })).toBe(0)
  })

  test('a wrong size or a NaN is infinitely wrong', () => {
    expect(errorOf([0, -4], want)).toBe(Number.POSITIVE_INFINITY)
    expect(errorOf([0, -4, Number.NaN, -4], want)).toBe(Number.POSITIVE_INFINITY)
  })

  test('one wrong element of a thousand shows in the slope', () => {
    const x = { shape: [1000], data: Float64Array.from(new Random(4).normals(1000)) }
    const cubes = (values: Record<string, { data: Float64Array }>) => values.x.data.reduce((all, v) => all + v ** 3, 0)
    const slope = x.data.map((value) => 3 * value ** 2)
    expect(slopeError(cubes, { x }, { x: slope })).toBeLessThan(1e-8)
    expect(slopeError(cubes, { x }, { x: slope.map((value, i) => (i === 517 ? value + 1 : value)) })).toBeGreaterThan(
      1e-3,
    )
    expect(slopeError(cubes, { x }, { x: new Float64Array(1000) })).toBe(Number.POSITIVE_INFINITY)
  })

  test('a case passes with its reference, and fails with another or where only its gradient is off', () =>
    withoutLeaks(async () => {
      const squares = (factor: number, op: typeof mul) =>
        define({
          name: 'squares',
          inputs: (make) => ({ x: make.normal(5, 37) }),
          op: (step, { x }) => op(step, x, x),
          reference: ({ x }) => ({ shape: x.shape, data: x.data.map((value) => factor * value ** 2) }),
        })
      expect(await checkCase(gpu, squares(1, mul))).toMatchObject({ right: true })
      expect((await checkCase(gpu, squares(2, mul))).right).toBe(false)
      // Half of the gradient is lost, the result is not.
      const values = new Random(1).normals(185)
      const halved = await checkCase(
        gpu,
        squares(1, (step, x) => mul(step, x, step.upload(x.dtype, x.shape, values))),
      )
      expect(halved.error).toBeLessThan(2e-6)
      expect(halved.gradientError).toBeGreaterThan(1e-3)
      expect(halved.right).toBe(false)
    }))

  test('int4 is off by at most half a step', () => {
    const values = new Random(3).normals(128)
    const { codes, scales } = quantizeInt4(values)
    const back = dequantizeInt4({ codes, scales })
    for (const [i, value] of values.entries())
      expect(Math.abs(back[i] - value)).toBeLessThanOrEqual(scales[Math.floor(i / 32)] / 2 + 1e-6)
  })

  // The larger products are checked whenever the bench runs.
  for (const item of peerCases.filter(({ name }) => !/512|1024|2048/.test(name)))
    test(`our ${item.name} passes`, () =>
      withoutLeaks(async () => {
        const inputs = item.inputs()
        const ours = prepareOurs(gpu, item, inputs)
        const { error, right } = await check(ours, item.reference(inputs), item.tolerance)
        ours.free()
        expect(right, `error ${error}`).toBe(true)
      }))
})

test('an ONNX model is the bytes that protobuf asks for', () => {
  const graph = {
    inputs: [],
    outputs: [],
    nodes: [{ op: 'Softmax', inputs: ['x'], outputs: ['y'], attributes: { axis: -1, eps: { float: 0.5 } } }],
  }
  const hex = (text: string) => Buffer.from(text).toString('hex')
  const axis = `0a04${hex('axis')}18${'ff'.repeat(9)}01a00102` // −1 in ten digits of base 128, type INT
  const eps = `0a03${hex('eps')}150000003fa00101` // 0.5, type FLOAT
  const node = `0a01${hex('x')}1201${hex('y')}2207${hex('Softmax')}2a14${axis}2a0d${eps}3a00`
  const size = (text: string) => (text.length / 2).toString(16).padStart(2, '0')
  const body = `0a${size(node)}${node}1205${hex('graph')}`
  const opsets = `42040a0010154211${`0a0d${hex('com.microsoft')}1001`}`
  expect(Buffer.from(writeModel(graph)).toString('hex')).toBe(`080a3a${size(body)}${body}${opsets}`)
})

test('a peer that does not start is a failure with a reason, and can be asked again', async () => {
  using peer = new PeerProcess('nobody', undefined)
  await expect(peer.ask({ do: 'open' })).rejects.toThrow('There is no peer nobody')
  await expect(peer.ask({ do: 'time', count: 1 })).rejects.toThrow('There is no peer nobody')
})

test('a peer whose process dies is a failure with the signal, and is started again', async () => {
  using peer = new PeerProcess('nobody', undefined)
  const asked = peer.ask({ do: 'open' })
  process.kill(peer.pid!, 'SIGSEGV')
  await expect(asked).rejects.toThrow('its process ended with SIGSEGV')
  expect(peer.pid).toBeUndefined()
  await expect(peer.ask({ do: 'open' })).rejects.toThrow('There is no peer nobody')
})
