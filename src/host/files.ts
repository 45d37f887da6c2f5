import { open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { ResourceError } from '../core/errors.ts'

/**
 * Writes a file whole or not at all: to a temporary name in the same folder, flushed to disk, then renamed.
 * @throws ResourceError when the disk is full; the old file, if any, is untouched.
 */
export async function writeFileAtomic(path: string, bytes: Uint8Array | string): Promise<void> {
  const part = `${path}.${process.pid}.part`
  try {
    const file = await open(part, 'w')
    try {
      await file.writeFile(bytes)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(part, path)
    const folder = await open(dirname(path))
    await folder.sync().finally(() => folder.close())
  } catch (error) {
    await rm(part, { force: true })
    const code = (error as { code?: string }).code
    if (code === 'ENOSPC' || code === 'EDQUOT')
      throw new ResourceError(`Cannot write ${path}: the disk is full. Free ${bytes.length} bytes and run again.`)
    throw error
  }
}
