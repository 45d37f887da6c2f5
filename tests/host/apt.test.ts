import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { GpuError } from '../../src/core/errors.ts'
import { installCommand, installSoftwareDriver, reasonOf } from '../../src/host/apt.ts'

// The system's package manager stands aside here: a script of the same name, first in PATH, notes what it is told.
let folder: string
let path: string | undefined

function standIn(name: string, script: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\necho "${name} $*" >> "${folder}/log"\n${script}\n`)
  chmodSync(join(folder, name), 0o755)
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nexus-apt-'))
  path = process.env.PATH
  process.env.PATH = `${folder}:${path}`
})

afterEach(() => {
  process.env.PATH = path
  rmSync(folder, { recursive: true })
})

const log = () => readFileSync(join(folder, 'log'), 'utf8').trim().split('\n')

describe.skipIf(!existsSync('/usr/bin/apt-get'))('installSoftwareDriver', () => {
  const asRoot = { root: true, terminal: false }

  test('brings a compiler along where Mesa is old', async () => {
    standIn('apt-get', '')
    standIn('apt-cache', 'echo "Package: mesa-vulkan-drivers"; echo "Version: 22.3.6-1+deb12u1"')
    const said: string[] = []
    await installSoftwareDriver({ ...asRoot, say: (line) => said.push(line) })
    expect(log()).toEqual([
      'apt-get update -qq',
      'apt-cache show --no-all-versions mesa-vulkan-drivers',
      'apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers libvulkan1 libvulkan-dev gcc libc6-dev',
    ])
    expect(said.join('\n')).toContain('mesa-vulkan-drivers libvulkan1 libvulkan-dev gcc libc6-dev')
  })

  test('installs the driver alone where Mesa is new', async () => {
    standIn('apt-get', '')
    standIn('apt-cache', 'echo "Version: 25.0.7-2"')
    await installSoftwareDriver({ ...asRoot, say: () => {} })
    expect(log().at(-1)).toBe('apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers libvulkan1')
  })

  test('touches nothing without the right to, and names the one command', async () => {
    standIn('apt-get', '')
    const attempt = installSoftwareDriver({ root: false, say: () => {} })
    await expect(attempt).rejects.toThrow(GpuError)
    await expect(attempt).rejects.toThrow("Run: sudo sh -c 'apt-get update && apt-get install -y")
    expect(existsSync(join(folder, 'log'))).toBe(false)
  })

  test('says why the package manager failed', async () => {
    standIn('apt-get', '[ "$1" = update ] || { echo "Reading..." >&2; echo "E: No space left" >&2; exit 100; }')
    standIn('apt-cache', 'echo "Version: 22.3.6"')
    const attempt = installSoftwareDriver({ ...asRoot, say: () => {} })
    await expect(attempt).rejects.toThrow('Installing failed: E: No space left. Run: apt-get update')
  })
})

test('installCommand asks for rights only where they are missing', () => {
  expect(installCommand(['a', 'b'], true)).toBe('apt-get update && apt-get install -y --no-install-recommends a b')
  expect(installCommand(['a'], false)).toMatch(/^sudo sh -c '.* a'$/)
})

test('reasonOf prefers what the program said', () => {
  const stderr = Buffer.from('In file included\nx.c:2: fatal error: no header\ncompilation terminated.')
  expect(reasonOf(Object.assign(new Error('Command failed: gcc'), { stderr }))).toBe('x.c:2: fatal error: no header')
  expect(reasonOf(new Error('first line\nsecond'))).toBe('first line')
})
