import { unzipSync, zipSync } from 'fflate'
import { type LoraModule, writePeft } from './peft.ts'
import { parseSafetensors, writeSafetensors } from './safetensors.ts'
import type { CpuTensor } from './tensor.ts'

/** The two files of a PEFT adapter. */
export const peftFiles = { tensors: 'adapter_model.safetensors', config: 'adapter_config.json' } as const

/** A PEFT adapter as it was read: the parsed configuration and the tensors beside it. */
export interface PeftAdapter {
  readonly settings: unknown
  readonly tensors: ReadonlyMap<string, CpuTensor>
}

/** Most bytes that one file of an archive may come to: adapters are small, and an archive may claim anything. */
const mostBytes = 2 ** 30

/**
 * An adapter as one .zip in PEFT's layout. The same tensors give the same bytes.
 * @param tensors matrices by the names of PEFT files, their scale folded into B.
 * @param options.layers of the base; where each is adapted alike, modules are named by kind.
 * @param options.baseModel name of the base, for people.
 */
export function writePeftZip(
  tensors: ReadonlyMap<string, CpuTensor>,
  options: { readonly layers: number; readonly baseModel?: string },
): Uint8Array<ArrayBuffer> {
  const modules: LoraModule[] = []
  for (const [name, a] of tensors) {
    const module = /^base_model\.model\.(.+)\.lora_A\.weight$/.exec(name)?.[1]
    const b = tensors.get(name.replace('lora_A', 'lora_B'))
    if (module && b) modules.push({ module, a, b, rank: a.shape[0], scale: 1 })
  }
  const peft = writePeft(modules, { ranks: 'native', ...options })
  // In the calendar's first second, whichever time zone writes it.
  const mtime = new Date(1980, 0, 1)
  return zipSync({
    [peftFiles.config]: [new TextEncoder().encode(peft.config), { level: 9, mtime }],
    [peftFiles.tensors]: [writeSafetensors(peft.tensors, { format: 'pt' }), { level: 0, mtime }],
  })
}

/**
 * Reads what {@link writePeftZip} wrote, or any archive that holds the two files of a PEFT adapter in one folder.
 * @throws SyntaxError naming what is missing or unreadable.
 */
export function readPeftZip(bytes: Uint8Array): PeftAdapter {
  const fault = (reason: string) => new SyntaxError(`Cannot read the adapter: ${reason}`)
  const last = (path: string) => path.slice(path.lastIndexOf('/') + 1)
  let files: Record<string, Uint8Array>
  try {
    files = unzipSync(bytes, {
      filter({ name, originalSize }) {
        const wanted = (Object.values(peftFiles) as string[]).includes(last(name))
        if (wanted && originalSize > mostBytes) throw fault(`${name} claims ${originalSize} bytes`)
        return wanted
      },
    })
  } catch (error) {
    throw error instanceof SyntaxError ? error : fault(`it is no .zip (${(error as Error).message})`)
  }
  const [tensors, config] = [peftFiles.tensors, peftFiles.config].map((wanted) => {
    const found = Object.keys(files).filter((path) => last(path) === wanted)
    if (found.length !== 1) throw fault(`it must hold one ${wanted}, it holds ${found.length}`)
    return files[found[0]]
  })
  return readPeftFiles(config, tensors)
}

/**
 * Reads the two files of a PEFT adapter.
 * @param config adapter_config.json.
 * @param tensors adapter_model.safetensors.
 * @throws SyntaxError naming the file and what is wrong with it.
 */
export function readPeftFiles(config: Uint8Array, tensors: Uint8Array): PeftAdapter {
  let settings: unknown
  try {
    settings = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(config))
  } catch (error) {
    throw new SyntaxError(
      `Cannot read the adapter: ${peftFiles.config} is not valid JSON (${(error as Error).message})`,
    )
  }
  return { settings, tensors: parseSafetensors(tensors).tensors }
}
