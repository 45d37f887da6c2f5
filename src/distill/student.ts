import { join } from 'node:path'
import { Adapter } from '../adapters/adapter.ts'
import type { BundleStorage } from '../bundle/manifest.ts'
import { packBackbone, unpackBackbone } from '../bundle/storage.ts'
import { parseSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { readBytes, writeFileAtomic } from '../host/files.ts'
import { Decoder } from '../models/decoder.ts'
import type { Gpu } from '../runtime/gpu.ts'
import type { paths, StudentPaths } from './run.ts'
import { readArchitecture } from './synthesize.ts'

/** A student on the GPU: one backbone, one adapter a capability. */
export class Student implements Disposable {
  readonly backbone: Decoder
  readonly adapters: ReadonlyMap<string, Adapter>

  constructor(backbone: Decoder, adapters: ReadonlyMap<string, Adapter>) {
    this.backbone = backbone
    this.adapters = adapters
  }

  /**
   * Reads the student that stage 4 wrote, as it will be packed.
   * @param of where it is, if not the run's own but a control's.
   */
  static async read(
    gpu: Gpu,
    where: ReturnType<typeof paths>,
    storage: BundleStorage = 'f16',
    of: StudentPaths = where,
  ): Promise<Student> {
    const { architecture, config } = await readArchitecture(where.architecture)
    const read = async (name: string) => parseSafetensors(await readBytes(join(of.student, name))).tensors
    const tensors = unpackBackbone(await read('backbone.safetensors'))
    const backbone = Decoder.load(gpu, config, tensors, storage === 'f16' ? 'f32' : storage)
    const adapters = new Map<string, Adapter>()
    for (const name of Object.keys(architecture.adapters))
      adapters.set(name, Adapter.load(gpu, name, config, await read(`adapters/${name}.safetensors`)))
    return new Student(backbone, adapters)
  }

  /** Writes the backbone as it will be packed, and the adapters in f16. */
  async write(where: StudentPaths, storage: BundleStorage = 'f16'): Promise<void> {
    const write = (name: string, tensors: ReadonlyMap<string, CpuTensor>) =>
      writeFileAtomic(join(where.student, name), writeSafetensors(tensors, { format: 'pt' }))
    await write('backbone.safetensors', packBackbone(await this.backbone.toTensors('F32'), storage))
    for (const [name, adapter] of this.adapters)
      await write(`adapters/${name}.safetensors`, await adapter.toTensors('F16'))
  }

  [Symbol.dispose](): void {
    for (const adapter of this.adapters.values()) adapter[Symbol.dispose]()
    this.backbone[Symbol.dispose]()
  }
}
