import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { buildLayer, findSoftwareDrivers, needsLayer, type SoftwareDriver } from '../../src/host/software-gpu.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nexus-software-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const writeManifest = (name: string, apiVersion: string) =>
  writeFileSync(join(folder, name), JSON.stringify({ ICD: { api_version: apiVersion } }, null, 2))

describe('findSoftwareDrivers', () => {
  const nowhere = () => join(folder, 'nowhere')

  test('finds none in an empty folder, and none where there is no folder', () => {
    expect(findSoftwareDrivers({ manifests: folder, swiftshader: nowhere() })).toEqual([])
    expect(findSoftwareDrivers({ manifests: nowhere(), swiftshader: nowhere() })).toEqual([])
  })

  test('puts lavapipe first, and of two the one for this processor', () => {
    for (const name of ['intel_icd.x86_64.json', 'lvp_icd.i686.json', 'lvp_icd.x86_64.json', 'lvp_icd.aarch64.json'])
      writeManifest(name, '1.3.230')
    const swiftshader = join(folder, 'intel_icd.x86_64.json')
    const [first, second] = findSoftwareDrivers({ manifests: folder, swiftshader })
    const processor = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
    expect(first).toEqual({ name: 'lavapipe', manifest: join(folder, `lvp_icd.${processor}.json`) })
    expect(second).toEqual({ name: 'swiftshader', manifest: swiftshader })
  })
})

test('needsLayer tells an old lavapipe by the Vulkan version it announces', () => {
  const driver = (name: SoftwareDriver['name'], version: string) => {
    writeManifest('icd.json', version)
    return { name, manifest: join(folder, 'icd.json') }
  }
  expect(needsLayer(driver('lavapipe', '1.1.230'))).toBe(true)
  expect(needsLayer(driver('lavapipe', '1.3.237'))).toBe(true)
  expect(needsLayer(driver('lavapipe', '1.3.238'))).toBe(false)
  expect(needsLayer(driver('lavapipe', '1.4.305'))).toBe(false)
  expect(needsLayer(driver('swiftshader', '1.0.5'))).toBe(false)
})

describe('buildLayer', () => {
  test('says that the compiler is missing, and leaves nothing half-built', () => {
    const path = process.env.PATH
    process.env.PATH = folder
    try {
      expect(() => buildLayer(join(folder, 'cache'))).toThrow('gcc is not installed. Run: ')
    } finally {
      process.env.PATH = path
    }
    expect(readdirSync(join(folder, 'cache'))).toEqual([])
  })

  // Where no driver needs the layer there may be no compiler and no Vulkan header either.
  test.runIf(findSoftwareDrivers().some(needsLayer))(
    'gives two processes that build at once one whole layer',
    async () => {
      const cache = join(folder, 'cache')
      mkdirSync(cache)
      const module = new URL('../../src/host/software-gpu.ts', import.meta.url).href
      const code = `const { buildLayer } = await import('${module}'); console.log(buildLayer('${cache}'))`
      const build = () => promisify(execFile)(process.execPath, ['--input-type=module', '-e', code])
      const outputs = await Promise.all([build(), build()])
      const built = outputs.map(({ stdout }) => stdout.trim())
      expect(built[0]).toBe(built[1])
      expect(readdirSync(cache)).toHaveLength(1)
      expect(existsSync(join(built[0], 'libVkLayer_nexus_lavapipe.so'))).toBe(true)
      expect(existsSync(join(built[0], 'lavapipe-layer.json'))).toBe(true)
    },
  )
})
