// Checks the house: which room may import which, no cycles, no file that is two ideas, WebGPU only where it belongs.
// Run by `npm run layers`.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

const root = join(import.meta.dirname, '..')
const source = join(root, 'src')

/** Rooms that each room may import, beside itself. */
const allowed: Record<string, readonly string[]> = {
  core: [],
  host: ['core'],
  formats: ['core'],
  grammar: [],
  data: ['core', 'formats'],
  runtime: ['core', 'host'],
  kernels: ['core', 'runtime'],
  models: ['core', 'host', 'formats', 'runtime', 'kernels'],
  pca: ['core', 'formats', 'runtime', 'kernels'],
  adapters: ['core', 'formats', 'runtime', 'kernels', 'models'],
  train: ['core', 'host', 'formats', 'data', 'runtime', 'kernels', 'models', 'adapters'],
  report: ['core'],
  profile: ['core', 'host', 'formats', 'runtime', 'kernels', 'models', 'pca', 'train', 'report'],
  bundle: ['core', 'formats'],
  inference: ['core', 'formats', 'grammar', 'runtime', 'kernels', 'models', 'adapters', 'bundle'],
  browser: ['core', 'formats', 'runtime', 'bundle', 'inference'],
  node: ['core', 'host', 'formats', 'bundle', 'inference'],
  distill: [
    ...['core', 'host', 'formats', 'runtime', 'kernels', 'models', 'pca', 'adapters', 'train', 'bundle'],
    // A teacher of another vocabulary writes with the engine.
    ...['report', 'profile', 'inference'],
  ],
  demo: ['core', 'host', 'formats', 'runtime', 'train', 'distill'],
  cli: [
    ...['core', 'host', 'formats', 'runtime', 'kernels', 'models', 'pca', 'adapters', 'train', 'bundle', 'inference'],
    ...['grammar', 'node', 'distill', 'demo', 'report', 'profile'],
  ],
}
/** Rooms that a browser runs: they name no module of Node. */
const browserRooms = [
  'core',
  'report',
  'formats',
  'grammar',
  'runtime',
  'kernels',
  'adapters',
  'pca',
  'bundle',
  'inference',
  'browser',
]
/** Files of other rooms that a browser runs too, by what they are for. */
const browserFiles = [
  // training in a page
  ...['batch', 'fit-text', 'gradient-sum', 'loop', 'optimiser', 'schedule', 'text-adapter'].map(
    (name) => `train/${name}.ts`,
  ),
  ...['decoder', 'decoder-layer', 'decoder-weights', 'random-tensors'].map((name) => `models/${name}.ts`),
]
const mostLines = 400
const webgpuCalls =
  /\bnavigator\.gpu\b|\.requestDevice\(|\.create(Buffer|ComputePipeline|ComputePipelineAsync|ShaderModule|BindGroup|Sampler|Texture|QuerySet)\(/
const webgpuRooms = ['runtime', 'host', 'browser/open-gpu.ts']

const files = readdirSync(source, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
  .sort()
const faults: string[] = []
const imports = new Map<string, string[]>()

for (const file of files) {
  const text = readFileSync(join(source, file), 'utf8')
  const room = file.includes('/') ? file.slice(0, file.indexOf('/')) : undefined
  const generated = file.endsWith('.gen.ts')
  const lines = text.split('\n').length
  if (!generated && lines > mostLines)
    faults.push(`${file} has ${lines} lines, more than ${mostLines}: it is two ideas`)
  if (/(^|\/)(utils?|helpers?)\.ts$/.test(file)) faults.push(`${file}: name it by what it does`)
  if (room && webgpuCalls.test(text) && !webgpuRooms.includes(room) && !webgpuRooms.includes(file))
    faults.push(`${file} calls WebGPU; only ${webgpuRooms.join(' and ')} may`)
  const browser = (room && browserRooms.includes(room)) || browserFiles.includes(file)
  if (browser && /(?:from|import\() ?'node:/.test(text)) faults.push(`${file} imports from Node; it runs in browsers`)
  const targets: string[] = []
  for (const [, path] of text.matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)) {
    const target = relative(source, join(source, dirname(file), path))
    if (!target.startsWith('..')) targets.push(target)
    const other = target.split('/')[0]
    if (!room || other === room) continue
    if (!allowed[room]) faults.push(`${file} is in ${room}, a room that check-layers.ts does not know`)
    else if (!allowed[room].includes(other)) faults.push(`${file} imports ${target}: ${room} may not import ${other}`)
  }
  imports.set(file, targets)
}

/** A cycle among files that is reached from `file`, type imports included. */
function findCycle(file: string, path: readonly string[], done: Set<string>): string[] | undefined {
  if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
  if (done.has(file)) return undefined
  for (const target of imports.get(file) ?? []) {
    const cycle = findCycle(target, [...path, file], done)
    if (cycle) return cycle
  }
  done.add(file)
  return undefined
}

// Tensor, step and gpu of the runtime name each other's types; they are one idea in several files.
const knownCycles = (cycle: readonly string[]) => cycle.every((file) => file.startsWith('runtime/'))
const done = new Set<string>()
for (const file of files) {
  const cycle = findCycle(file, [], done)
  if (cycle && !knownCycles(cycle)) {
    faults.push(`cycle: ${cycle.join(' → ')}`)
    break
  }
}

for (const fault of faults) console.error(fault)
console.error(faults.length === 0 ? `layers: ${files.length} files in order` : `layers: ${faults.length} faults`)
process.exit(faults.length === 0 ? 0 : 1)
