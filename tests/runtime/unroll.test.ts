import { expect, test } from 'vitest'
import { gemv, matmul, matmulLanes, packed, packedGemvWide, packedLanes } from '../../src/kernels/wgsl.gen.ts'
import type { Entry } from '../../src/runtime/entry.ts'
import { withConstants } from '../../src/runtime/pipelines.ts'
import { unrolled } from '../../src/runtime/unroll.ts'
import { gpu } from '../gpu.ts'

const compact = (code: string) => code.replace(/\s+/g, ' ')

test('loops between known bounds are written out, inner ones too', () => {
  const code = `const n: u32 = 4u; const half = n / 2u;
    fn f() { for (var i = 0u; i < half; i++) { a[i] = b.i; for (var j = i; j < n; j += 2u) { a[j] += i; } } }`
  expect(compact(unrolled(code))).toContain(
    'fn f() { { a[0u] = b.i; for (var j = 0u; j < n; j += 2u) { a[j] += 0u; } } { a[1u] = b.i;',
  )
  const inner = 'fn f() { for (var i = 1u; i < 3u; i++) { for (var j = 0u; j < 4u; j += 2u) { a[j] += i; } } }'
  expect(compact(unrolled(inner))).toBe(
    'fn f() { { { a[0u] += 1u; } { a[2u] += 1u; } } { { a[0u] += 2u; } { a[2u] += 2u; } } }',
  )
})

test('a shuffle from a lane that is known becomes a broadcast', () => {
  const code = 'const n: u32 = 4u; fn f() { for (var r = 0u; r < 1u; r++) { a = subgroupShuffle(b[r / n], r % n); } }'
  expect(compact(unrolled(code))).toContain('a = subgroupBroadcast(b[0u / n], 0u % n);')
  expect(unrolled('a = subgroupShuffle(b, c & 7u);')).toBe('a = subgroupShuffle(b, c & 7u);')
})

test('other loops stay', () => {
  for (const code of [
    'for (var i = 0u; i < p.k; i++) { sum += i; }',
    'for (var i = 0u; i < 4u; i++) { if (i > x) { break; } }',
    'for (var i = 0u; i < 99u; i++) { sum += i; }',
    'for (var i = 0u; i < 4u; i++) { let i = 3u; sum += i; }',
  ])
    expect(unrolled(code)).toBe(code)
})

test.each(Object.entries({ matmul, matmulLanes, packed, packedLanes, gemv, packedGemvWide }))(
  '%s still compiles when it is written out',
  async (_, kernel) => {
    for (const entry of Object.values(kernel) as Entry[]) {
      const code = unrolled(withConstants(entry.source, {}))
      gpu.device.pushErrorScope('validation')
      const module = gpu.device.createShaderModule({ code })
      gpu.device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: entry.entry } })
      expect((await gpu.device.popErrorScope())?.message, entry.entry).toBeUndefined()
    }
  },
)
