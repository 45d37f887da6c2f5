import { expect, test } from 'vitest'
import * as kernels from '../../src/kernels/wgsl.gen.ts'
import type { Entry } from '../../src/runtime/entry.ts'
import { withConstants } from '../../src/runtime/pipelines.ts'
import { gpu } from '../gpu.ts'

const entries: Entry[] = Object.values(kernels).flatMap((kernel) => Object.values(kernel) as Entry[])

test.each(entries.map((entry) => [`${entry.kernel}.${entry.entry}`, entry] as const))(
  '%s compiles',
  async (_, entry) => {
    const variants = Object.entries(entry.source).filter(([elem]) => elem === 'f32' || gpu.capabilities.f16)
    for (const [elem, code] of variants) {
      gpu.device.pushErrorScope('validation')
      const module = gpu.device.createShaderModule({ code: withConstants(code, {}) })
      gpu.device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: entry.entry } })
      expect((await gpu.device.popErrorScope())?.message, elem).toBeUndefined()
    }
  },
)

test('every kernel entry has at most the eight storage buffers that every browser offers', () => {
  for (const entry of entries) expect(Object.keys(entry.bindings).length, entry.entry).toBeLessThanOrEqual(8)
})
