import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { GpuError, ResourceError } from '../core/errors.ts'
import type { Progress } from '../core/progress.ts'
import type { Output } from './output.ts'

const root = join(import.meta.dirname, '../..')

/** The gate in a fresh process that knows the run's folder and nothing else. */
export function gateInOwnProcess(
  folder: string,
  adapter: string | undefined,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const args = [
    join(root, 'bin/nexus.mjs'),
    'niwt',
    'gate',
    '--json',
    '--folder',
    folder,
    ...(adapter ? ['--adapter', adapter] : []),
  ]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  // Ctrl-C at a terminal reaches the child by itself; another signal does not.
  signal.addEventListener('abort', () => child.kill('SIGINT'))
  let fault = ''
  child.stderr.on('data', (chunk: Buffer) => {
    fault += chunk.toString()
  })
  createInterface({ input: child.stdout }).on('line', (line) => {
    const message = JSON.parse(line) as { event: string; message?: string } & Progress
    if (message.event === 'progress') output.onProgress(message)
    if (message.event === 'error') fault = message.message ?? ''
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => {
      if (code === 0) resolve()
      else if (code === 6) reject(new ResourceError(fault))
      else reject(new GpuError(`The gate’s process ended with ${code}: ${fault.trim() || 'no message'}`))
    })
  })
}
