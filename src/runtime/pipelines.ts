import type { FloatType } from '../core/dtype.ts'
import { GpuError } from '../core/errors.ts'
import { type Entry, withTypes } from './entry.ts'
import type { Block } from './pool.ts'
import type { Arena } from './queue.ts'
import { unrolled } from './unroll.ts'

/** A compiled entry point with the layout that its bind groups follow. */
export interface Pipeline {
  readonly id: number
  readonly pipeline: GPUComputePipeline
  readonly layout: GPUBindGroupLayout
}

/** A range of a block that a binding shows to the shader. */
export interface BoundBlock {
  readonly binding: number
  readonly block: Block
  readonly offset: number
  readonly bytes: number
}

const compute = 0x4 // GPUShaderStage.COMPUTE
const mostBindGroups = 16_384

/** Compiles entry points once for each pair of storage types and set of constants, and keeps bind groups by their buffers. */
export class Pipelines {
  readonly #device: GPUDevice
  readonly #storedParams: boolean
  readonly #writesOut: boolean
  readonly #modules = new Map<string, GPUShaderModule>()
  readonly #pipelines = new Map<string, Pipeline>()
  readonly #bindGroups = new Map<string, GPUBindGroup>()

  /**
   * @param storedParams whether parameters are bound as read-only storage. Mesa's software driver specialises a shader
   *   on the uniforms that its loops and conditions depend on, and compiles it anew at every dispatch.
   * @param writesOut whether the loops of products are written out before compiling: SwiftShader does not unroll them.
   */
  constructor(device: GPUDevice, storedParams: boolean, writesOut = false) {
    this.#device = device
    this.#storedParams = storedParams
    this.#writesOut = writesOut
  }

  /**
   * The pipeline of `entry` for activations and weights of these storage types.
   * @throws GpuError when f16 storage is asked of a kernel or an adapter that has none.
   */
  get(entry: Entry, elem: FloatType, stored: FloatType, constants: Record<string, number>): Pipeline {
    let key = `${entry.kernel}.${entry.entry}.${elem}.${stored}`
    for (const name in constants) key += `.${name}=${constants[name]}`
    return this.#pipelines.get(key) ?? this.#compile(entry, withTypes(entry.source, elem, stored), constants, key)
  }

  /** The bind group for `operands`, with the parameters behind `params` at a dynamic offset. */
  bindGroup(pipeline: Pipeline, operands: readonly BoundBlock[], params: Params | null): GPUBindGroup {
    let key = params ? `${pipeline.id}/${params.arena.id}` : `${pipeline.id}`
    for (const { block, offset, bytes } of operands) key += `,${block.id}:${offset}:${bytes}`
    const known = this.#bindGroups.get(key)
    if (known) return known
    const entries: GPUBindGroupEntry[] = operands.map(({ binding, block, offset, bytes }) => ({
      binding,
      resource: { buffer: block.buffer, offset, size: bytes },
    }))
    if (params) entries.push({ binding: params.binding, resource: { buffer: params.arena.buffer, size: params.bytes } })
    if (this.#bindGroups.size >= mostBindGroups) this.#bindGroups.clear()
    const group = this.#device.createBindGroup({ layout: pipeline.layout, entries, label: pipeline.pipeline.label })
    this.#bindGroups.set(key, group)
    return group
  }

  /** Forgets all bind groups: some of their buffers are about to be destroyed. */
  forgetBindGroups(): void {
    this.#bindGroups.clear()
  }

  #compile(entry: Entry, source: string, constants: Record<string, number>, key: string): Pipeline {
    const label = `${entry.kernel}.${entry.entry}`
    if (source.startsWith('enable f16;') && !this.#device.features.has('shader-f16'))
      throw new GpuError(`Cannot run ${label} with f16 storage: this adapter has no shader-f16; use f32 tensors`)
    const constant = withConstants(source, constants)
    const plain = this.#writesOut && /^(matmul|packed|gemv)/.test(entry.kernel) ? unrolled(constant) : constant
    const code = this.#storedParams ? plain.replaceAll('var<uniform>', 'var<storage, read>') : plain
    let module = this.#modules.get(code)
    if (!module) {
      module = this.#device.createShaderModule({ code, label: entry.kernel })
      this.#modules.set(code, module)
    }
    const entries: GPUBindGroupLayoutEntry[] = Object.values(entry.bindings).map(({ binding, access }) => ({
      binding,
      visibility: compute,
      buffer: { type: access === 'read' ? 'read-only-storage' : 'storage' },
    }))
    if (entry.params)
      entries.push({
        binding: entry.params.binding,
        visibility: compute,
        buffer: {
          type: this.#storedParams ? 'read-only-storage' : 'uniform',
          hasDynamicOffset: true,
          minBindingSize: entry.params.bytes,
        },
      })
    const layout = this.#device.createBindGroupLayout({ entries, label })
    const pipeline: Pipeline = {
      id: this.#pipelines.size,
      layout,
      pipeline: this.#device.createComputePipeline({
        layout: this.#device.createPipelineLayout({ bindGroupLayouts: [layout], label }),
        compute: { module, entryPoint: entry.entry },
        label,
      }),
    }
    this.#pipelines.set(key, pipeline)
    return pipeline
  }
}

/** `code` with every `override` turned into a `const` of the given or its default value, so that it may size arrays. */
export function withConstants(code: string, constants: Readonly<Record<string, number>>): string {
  return code.replace(
    /\boverride (\w+): (\w+) = ([^;]+);/g,
    (_, name: string, type: string, value: string) => `const ${name}: ${type} = ${constants[name] ?? value};`,
  )
}

/** Where the uniform struct of a dispatch is bound. */
export interface Params {
  readonly binding: number
  readonly arena: Arena
  readonly bytes: number
}
