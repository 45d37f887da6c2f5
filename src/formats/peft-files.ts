import { unzipSync } from 'fflate'

/** The two files of a PEFT adapter. */
export const peftFiles = { tensors: 'adapter_model.safetensors', config: 'adapter_config.json' } as const

/** Most bytes that one file of an archive may come to: adapters are small, and an archive may claim anything. */
const mostBytes = 2 ** 30

/**
 * The two files of a PEFT adapter out of an archive that holds them.
 * @returns adapter_config.json, parsed, and adapter_model.safetensors as it is.
 * @throws SyntaxError naming what is missing or unreadable.
 */
export function unzipPeft(bytes: Uint8Array): { settings: unknown; file: Uint8Array<ArrayBuffer> } {
  const fault = (reason: string) => new SyntaxError(`Cannot read the adapter: ${reason}`)
  const last = (path: string) => path.slice(path.lastIndexOf('/') + 1)
  let files: Record<string, Uint8Array<ArrayBuffer>>
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
  const [file, config] = [peftFiles.tensors, peftFiles.config].map((wanted) => {
    const found = Object.keys(files).filter((path) => last(path) === wanted)
    if (found.length !== 1) throw fault(`it must hold one ${wanted}, it holds ${found.length}`)
    return files[found[0]]
  })
  try {
    return { settings: JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(config)), file }
  } catch (error) {
    throw fault(`${peftFiles.config} is not valid JSON (${(error as Error).message})`)
  }
}
