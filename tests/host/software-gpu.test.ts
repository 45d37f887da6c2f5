import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { buildLayer, findSoftwareDriver, installHint, needsLayer } from '../../src/host/software-gpu.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nexus-gpu-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function manifest(version: string): Promise<string> {
  const path = join(folder, `icd-${version}`)
  await mkdir(path)
  await writeFile(join(path, 'lvp_icd.x86_64.json'), `{"ICD": {"api_version": "${version}"}}`)
  return path
}

test('without a driver there is none, and the hint is one command', () => {
  expect(findSoftwareDriver(join(folder, 'nowhere'), join(folder, 'nothing'))).toBeUndefined()
  expect(installHint).toContain('apt-get install -y --no-install-recommends mesa-vulkan-drivers')
})

test('lavapipe comes before SwiftShader, and only the old one needs the layer', async () => {
  const swiftshader = join(folder, 'vk_swiftshader_icd.json')
  await writeFile(swiftshader, '{}')
  expect(findSoftwareDriver(join(folder, 'nowhere'), swiftshader)).toEqual({
    name: 'swiftshader',
    manifest: swiftshader,
  })
  for (const [version, wanted] of [
    ['1.1.230', true],
    ['1.3.230', true],
    ['1.3.238', false],
    ['1.4.305', false],
  ] as const) {
    const driver = findSoftwareDriver(await manifest(version), swiftshader)!
    expect(driver.name).toBe('lavapipe')
    expect(needsLayer(driver), version).toBe(wanted)
  }
})

test('the layer is built once, even by several processes at once, and a failed build says what is missing', () => {
  const cache = join(folder, 'cache')
  try {
    const built = buildLayer(cache)
    expect(existsSync(join(built, 'libVkLayer_nexus_lavapipe.so'))).toBe(true)
    expect(buildLayer(cache)).toBe(built)
  } catch (error) {
    // A machine whose driver is new has no need of a compiler; then the message must name the packages.
    expect((error as Error).message).toContain('libvulkan-dev gcc')
  }
  const path = process.env.PATH
  process.env.PATH = folder
  try {
    expect(() => buildLayer(join(folder, 'other'))).toThrow('Cannot build the layer')
    expect(existsSync(join(folder, 'other'))).toBe(true)
  } finally {
    process.env.PATH = path
  }
})
