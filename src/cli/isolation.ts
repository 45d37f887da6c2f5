import { spawn, spawnSync } from 'node:child_process'
import { realpathSync } from 'node:fs'
import { dirname, extname, join, resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cachePath } from '../host/cache.ts'
import { openGpuRoot } from '../host/gpu-root.ts'
import type { IsolatedResult } from './isolated-run.ts'

/** What a bundle did on its own, and how far it was alone. */
export interface FunctionalRun {
  /** Why it does not run; empty when it does. */
  readonly fault: string
  readonly answers: Readonly<Record<string, string>>
  /** What was not kept from it, in sentences. */
  readonly notes: readonly string[]
}

const program = resolve(import.meta.dirname, '..')
const system = ['/usr/', '/lib/', '/lib64/', '/etc/', '/dev/', '/proc/', '/sys/', '/opt/']

/** A command that starts another one in a network of its own, with nothing in it; or none, where the system has none. */
function networkless(): readonly string[] | undefined {
  const ways = [
    ['unshare', '-r', '-n', '--'],
    ['unshare', '-n', '--'],
    ['bwrap', '--dev-bind', '/', '/', '--unshare-net', '--'],
  ]
  return ways.find(([name, ...flags]) => spawnSync(name, [...flags, process.execPath, '--version']).status === 0)
}

/** Folders of the packages that running a bundle needs. */
function packages(): string[] {
  return ['webgpu', 'zod', 'fflate', '@huggingface/tokenizers', '@huggingface/jinja'].map((name) => {
    const found = fileURLToPath(import.meta.resolve(name))
    return found.slice(0, found.lastIndexOf(join('node_modules', name)) + join('node_modules', name).length) + sep
  })
}

/**
 * Runs a bundle in a process that reads nothing but the bundle, this program and the system (Node's permission model),
 * and that has no network (`unshare -n`); each capability answers its example twice.
 * @param path a folder or a .zip.
 * @param adapter GPU to use, as for every command.
 */
export async function runIsolated(path: string, adapter?: string): Promise<FunctionalRun> {
  const bundle = realpathSync(path)
  // A software driver is made ready here, where that may write; what it needs then stands in the environment.
  await openGpuRoot({ adapter, say: () => {} })
  const script = join(import.meta.dirname, `isolated-run${extname(import.meta.filename)}`)
  const readable = [`${program}${sep}`, bundle, `${bundle}${sep}`, ...packages(), join(program, '../package.json')]
  const drivers = [cachePath('software-gpu'), join(program, '../tools/software-gpu')].map((folder) => `${folder}${sep}`)
  const permission = process.allowedNodeEnvironmentFlags.has('--permission')
    ? [
        '--permission',
        '--allow-addons',
        ...[...readable, ...drivers, ...system].map((item) => `--allow-fs-read=${item}`),
      ]
    : []
  const network = networkless() ?? []
  const names = Object.keys(process.env).filter((name) =>
    /^(PATH|HOME|LANG|TMPDIR|LD_LIBRARY_PATH|NODEVICE_SELECT|XDG_.*|VK_.*|NEXUS_ADAPTER)$/.test(name),
  )
  const environment = Object.fromEntries(names.map((name) => [name, process.env[name]]))
  // Its neighbours are what a bundle must not see: the folder that it lies in, where the run keeps what it was made from.
  const outside = { NEXUS_OUTSIDE: dirname(bundle), ...(adapter ? { NEXUS_ADAPTER: adapter } : {}) }
  const [command, ...args] = [...network, process.execPath, '--no-warnings', ...permission, script, bundle]
  const child = spawn(command, args, {
    cwd: '/',
    env: { ...environment, ...outside },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 600_000,
  })
  let [text, errors] = ['', '']
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString()
  })
  const code = await new Promise<number | null>((done, reject) => child.on('error', reject).on('close', done))
  let result: IsolatedResult
  try {
    result = JSON.parse(text.trim().split('\n').at(-1)!) as IsolatedResult
  } catch {
    const fault = `its process ended with ${code}: ${errors.trim().slice(-400) || 'no message'}`
    return { fault, answers: {}, notes: [] }
  }
  const notes: string[] = []
  if (result.saw.network)
    notes.push('The run had a network: this system has no `unshare -n` or `bwrap` that may be used.')
  if (result.saw.otherFiles) notes.push('The run could read other files: this Node has no permission model.')
  return { fault: result.fault ?? '', answers: result.answers, notes }
}
