import { afterAll, expect, test } from 'vitest'
import { create } from 'webgpu'
import type { FloatType } from '../../src/core/dtype.ts'
import * as kernels from '../../src/kernels/wgsl.gen.ts'
import { type Entry, withTypes } from '../../src/runtime/entry.ts'
import { withConstants } from '../../src/runtime/pipelines.ts'
import { gpu } from '../gpu.ts'

const entries: Entry[] = Object.values(kernels).flatMap((kernel) => Object.values(kernel) as Entry[])

let units: { root: GPU; device: GPUDevice } | undefined

/** Dawn without a GPU behind it, which checks shaders for matrix units on any machine. */
async function deviceWithUnits(): Promise<GPUDevice> {
  if (units) return units.device
  const root = create(['backend=null', 'enable-dawn-features=allow_unsafe_apis'])
  const adapter = await root.requestAdapter()
  const features = ['chromium-experimental-subgroup-matrix', 'subgroups', 'shader-f16'] as GPUFeatureName[]
  const { maxComputeWorkgroupStorageSize } = adapter!.limits
  const device = await adapter!.requestDevice({
    requiredFeatures: features,
    requiredLimits: { maxComputeWorkgroupStorageSize },
  })
  units = { root, device }
  return device
}

afterAll(() => units?.device.destroy())

test.each(entries.map((entry) => [`${entry.kernel}.${entry.entry}`, entry] as const))(
  '%s compiles',
  async (_, entry) => {
    const types: [FloatType, FloatType][] = entry.types.map((elem) => [elem, elem])
    if (Object.values(entry.bindings).some(({ type }) => type === 'stored') && types.length > 1)
      types.push(['f32', 'f16'])
    for (const [elem, stored] of types) {
      if (stored === 'f16' && !gpu.capabilities.f16) continue
      const code = withTypes(entry.source, elem, stored)
      const units = code.includes('subgroup_matrix')
      const device = units ? await deviceWithUnits() : gpu.device
      // A workgroup must be whole subgroups, and those of the device without hardware are large.
      const constants: Record<string, number> = units
        ? { subgroup: device.adapterInfo.subgroupMaxSize, units_down: 1, units_across: 2 }
        : {}
      device.pushErrorScope('validation')
      const module = device.createShaderModule({ code: withConstants(code, constants) })
      device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: entry.entry } })
      expect((await device.popErrorScope())?.message, `${elem} ${stored}`).toBeUndefined()
    }
  },
)

test('every kernel entry has at most the eight storage buffers that every browser offers', () => {
  for (const entry of entries) expect(Object.keys(entry.bindings).length, entry.entry).toBeLessThanOrEqual(8)
})
