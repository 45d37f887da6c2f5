import { zipSync } from 'fflate'
import { peftFiles } from '../src/formats/peft-files.ts'

/** An adapter that a person opened. */
export interface AdapterFile {
  readonly name: string
  readonly zip: Uint8Array<ArrayBuffer>
}

/**
 * An adapter from what a person chose: one .zip, or the two files of PEFT.
 * @throws SyntaxError naming what is missing.
 */
export async function readAdapterFiles(files: readonly File[]): Promise<AdapterFile> {
  const bytes = async (file: File) => new Uint8Array(await file.arrayBuffer())
  const [first] = files
  if (files.length === 1 && /\.zip$/i.test(first.name)) return { name: nameFrom(first.name), zip: await bytes(first) }
  const parts = await Promise.all(
    Object.values(peftFiles).map(async (wanted) => {
      const file = files.find(({ name }) => name === wanted)
      if (!file)
        throw new SyntaxError(`Cannot open the adapter: choose its .zip, or both of its files; ${wanted} is missing`)
      return [wanted, await bytes(file)] as const
    }),
  )
  return { name: 'opened', zip: zipSync(Object.fromEntries(parts), { level: 0 }) }
}

/** A name for an adapter out of a file's name. */
function nameFrom(file: string): string {
  const name = file
    .replace(/\.zip$/i, '')
    .toLowerCase()
    .replace(/[^a-z0-9_-]+/g, '-')
    .replace(/^[-_]+|-+$/g, '')
  return name.slice(0, 36) || 'opened'
}
