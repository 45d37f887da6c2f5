import { sha256 } from '../host/files.ts'
import type { OpenModel } from './open-model.ts'

/** Numbers of a tensor that tell it from another's. */
const beginning = 1024

/** A hash of the configuration and of the beginning of every tensor: another one means another model. */
export async function modelHash({ config, weights }: Pick<OpenModel, 'config' | 'weights'>): Promise<string> {
  const beginnings: string[] = []
  for (const [name, { shape }] of weights.recipes) {
    const rows = Math.min(shape[0], Math.ceil(beginning / (shape[1] ?? 1)))
    const values = (await weights.read(name, 0, rows)).slice(0, beginning)
    beginnings.push(sha256(new Uint8Array(values.buffer)))
  }
  return sha256(JSON.stringify([config, beginnings]))
}
