import { expect, test } from 'vitest'
import { GpuError } from '../../src/core/errors.ts'
import { listAdapters, openGpuRoot } from '../../src/host/gpu-root.ts'

test('finds an adapter, and the same one by a part of its name in any case', async () => {
  const root = await openGpuRoot()
  expect(root.adapter.limits.maxComputeInvocationsPerWorkgroup).toBeGreaterThanOrEqual(128)
  const again = await openGpuRoot({ adapter: root.name.slice(0, 6).toUpperCase() })
  expect(again.name).toBe(root.name)
})

test('names what there is when the wanted adapter is missing', async () => {
  const { name } = await openGpuRoot()
  const attempt = openGpuRoot({ adapter: 'no such card', install: false })
  await expect(attempt).rejects.toThrow(GpuError)
  await expect(attempt).rejects.toThrow(`No adapter is named like "no such card"; there is ${name}`)
})

test('lists every adapter once', async () => {
  const names = (await listAdapters((await openGpuRoot()).gpu)).map(({ info }) => info.description)
  expect(new Set(names).size).toBe(names.length)
})
