// llama.cpp beside our generation: the same GGUF file and prompt, in a process of its own for each device.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Measured } from './llama/child.ts'

/** Vulkan opens the adapter that the driver's environment names, as ours does; the processor is another device. */
export const llamaDevices = ['vulkan', 'cpu'] as const

/** A GGUF file and what is asked of it. */
export interface LlamaTask {
  readonly path: string
  readonly prompt: readonly number[]
  readonly tokens: number
  readonly rounds: number
}

/** Whether llama.cpp is installed here. */
export const hasLlama = () => existsSync(join(import.meta.dirname, 'llama/node_modules'))

/**
 * Rates and tokens of llama.cpp on a device.
 * @throws Error when its process fails, or takes more than `minutes`.
 */
export async function runLlama(
  device: (typeof llamaDevices)[number],
  { path, prompt, tokens, rounds }: LlamaTask,
  minutes = 10,
): Promise<Measured> {
  const file = join(import.meta.dirname, 'llama/child.ts')
  // It takes a device that is a processor only where it is named. In f16 lavapipe is several times slower.
  const software = process.env.VK_ICD_FILENAMES ? { GGML_VK_VISIBLE_DEVICES: '0', GGML_VK_DISABLE_F16: '1' } : {}
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [file, device, path, String(tokens), String(rounds), prompt.join(',')],
    { env: { ...software, ...process.env }, timeout: minutes * 60_000, killSignal: 'SIGKILL' },
  ).catch((error: { killed?: boolean; stderr?: string; message: string }) => {
    const reason = error.stderr?.trim().split('\n').at(-1)
    throw new Error(error.killed ? `no answer in ${minutes} minutes` : reason || error.message)
  })
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Measured
}
