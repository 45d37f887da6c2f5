import { zipSync } from 'fflate'
import { type LoraModule, writePeft } from './peft.ts'
import { peftFiles, unzipPeft } from './peft-files.ts'
import { parseSafetensors, writeSafetensors } from './safetensors.ts'
import type { CpuTensor } from './tensor.ts'

/** A PEFT adapter as it was read: the parsed configuration and the tensors beside it. */
export interface PeftAdapter {
  readonly settings: unknown
  readonly tensors: ReadonlyMap<string, CpuTensor>
}

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
 * Reads what {@link writePeftZip} wrote, or any archive that holds the two files of a PEFT adapter.
 * @throws SyntaxError naming what is missing or unreadable.
 */
export function readPeftZip(bytes: Uint8Array): PeftAdapter {
  const { settings, file } = unzipPeft(bytes)
  return { settings, tensors: parseSafetensors(file).tensors }
}
