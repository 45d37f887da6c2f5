import { type DType, decode, encode, type HostArray, viewAs } from '../core/dtype.ts'
import { GpuError } from '../core/errors.ts'
import { Pipelines } from './pipelines.ts'
import { type MemoryUse, Pool } from './pool.ts'
import type { KernelProfile } from './profile.ts'
import { CommandQueue } from './queue.ts'
import { Scope } from './scope.ts'
import { Step, type StepOptions } from './step.ts'
import type { Tensor } from './tensor.ts'

/** What this device can do beyond the core of WebGPU. */
export interface Capabilities {
  /** Storage and arithmetic in half precision. */
  readonly f16: boolean
  readonly subgroups: boolean
  /** Invocations that run in step and whose loads are coalesced: as the adapter says, 32 where it does not. */
  readonly subgroupSize: number
  /** Times of single kernels. */
  readonly timestamps: boolean
}

/** How a {@link Gpu} is made. */
export interface GpuOptions {
  /** Most bytes of GPU memory to use; 15 GiB unless told, to leave room on a 16 GB card. */
  readonly memoryBudget?: number
  /** Keeps whatever must stay alive as long as the device: Dawn's root object in Node. */
  readonly root?: unknown
  /** What the adapter calls itself, for reports. */
  readonly name?: string
  /** Surrounds every tensor with a pattern that {@link Scope.checkGuards} looks for. For tests: it is slow. */
  readonly guards?: boolean
}

const optionalFeatures: GPUFeatureName[] = ['shader-f16', 'subgroups', 'timestamp-query']

/**
 * A GPU device with its memory pool and pipelines. Everything that runs on it starts here.
 *
 * @example
 * using gpu = await Gpu.open(await openGpuRoot())
 * using step = gpu.step()
 * const y = add(step, step.upload('f32', [2], [1, 2]), step.upload('f32', [2], [3, 4]))
 * console.log(await step.read(y)) // Float32Array [4, 6]
 */
export class Gpu implements Disposable {
  readonly device: GPUDevice
  readonly name: string
  readonly capabilities: Capabilities
  /** Whether tensors are filled with NaN at birth and have guarded ends. */
  readonly guards: boolean
  /** @internal */ readonly pool: Pool
  /** @internal */ readonly pipelines: Pipelines
  /** @internal */ readonly queue: CommandQueue
  /** Held so that it is never collected: without Dawn's root object the process crashes. */
  protected readonly root: unknown
  #disposed = false

  /** Wraps a device that the caller made; features that it lacks are not used. */
  constructor(device: GPUDevice, options: GpuOptions = {}) {
    this.device = device
    this.root = options.root
    this.name = options.name ?? 'unnamed adapter'
    this.guards = options.guards ?? false
    this.capabilities = {
      f16: device.features.has('shader-f16'),
      subgroups: device.features.has('subgroups'),
      subgroupSize: device.adapterInfo?.subgroupMinSize || 32,
      timestamps: device.features.has('timestamp-query'),
    }
    this.pipelines = new Pipelines(device)
    this.pool = new Pool(device, options.memoryBudget ?? 15 * 2 ** 30, () => this.pipelines.forgetBindGroups())
    this.queue = new CommandQueue(device)
  }

  /** Makes a device on `root.adapter` with every optional feature and the largest limits that it offers. */
  static async open(root: { adapter: GPUAdapter; name?: string }, options: GpuOptions = {}): Promise<Gpu> {
    const { adapter } = root
    const { limits } = adapter
    const device = await adapter.requestDevice({
      requiredFeatures: optionalFeatures.filter((feature) => adapter.features.has(feature)),
      requiredLimits: {
        maxBufferSize: limits.maxBufferSize,
        maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
        maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
        minUniformBufferOffsetAlignment: limits.minUniformBufferOffsetAlignment,
      },
    })
    return new Gpu(device, { root, name: root.name ?? adapter.info.description, ...options })
  }

  /** Number of tensors' blocks that are lent out: the same after a step as before it. */
  get live(): number {
    return this.pool.use.live
  }

  /** Memory that is lent out, was lent out at most, and is kept for reuse. */
  get memory(): MemoryUse {
    return this.pool.use
  }

  /** Calls `listener` when the device is lost, unless the loss is this object's own disposal. */
  onLost(listener: (message: string) => void): void {
    this.device.lost.then((info) => {
      if (!this.#disposed) listener(info.message || info.reason)
    })
  }

  /** An owner for tensors that outlive a step: weights, optimiser states, caches. */
  scope(label: string): Scope {
    return new Scope(this, label)
  }

  /** Begins to record. Dispose of the step (`using`) to give its memory back. */
  step(options: StepOptions = {}): Step {
    this.queue.check()
    return new Step(this, options)
  }

  /**
   * Rewrites a tensor, after everything recorded so far has read it.
   * @throws RangeError when the number of values is not the tensor's size.
   */
  write<D extends DType>(tensor: Tensor<D>, values: ArrayLike<number> | HostArray<D>): void {
    if (values.length !== tensor.size)
      throw new RangeError(`Cannot write ${tensor}: it has ${tensor.size} elements, got ${values.length}`)
    const native = viewAs(tensor.dtype, new ArrayBuffer(0)).constructor
    const host = values.constructor === native ? (values as HostArray<D>) : encode(tensor.dtype, values)
    this.queue.write(tensor.block.buffer, 0, padded(host))
  }

  /** The elements of a tensor as its dtype holds them; f16 as bits. */
  async readRaw<D extends DType>(tensor: Tensor<D>): Promise<HostArray<D>> {
    const buffer = await this.queue.read(tensor.block.buffer, Math.ceil(tensor.bytes / 4) * 4)
    return viewAs(tensor.dtype, buffer, 0, tensor.size)
  }

  /** The elements of a tensor as numbers; f16 becomes f32. */
  async read<D extends DType>(tensor: Tensor<D>): Promise<Readable<D>> {
    return decode(tensor.dtype, await this.readRaw(tensor)) as Readable<D>
  }

  /** Resolves when everything recorded so far is done. */
  finish(): Promise<void> {
    return this.queue.finish()
  }

  /**
   * Runs `work` with a timer around every kernel.
   * @throws GpuError when the adapter has no timestamps.
   */
  async profile(work: () => Promise<void>): Promise<KernelProfile[]> {
    if (!this.capabilities.timestamps)
      throw new GpuError(`Cannot profile on ${this.name}: the adapter has no timestamp-query`)
    this.queue.setProfiling(true)
    try {
      await work()
      await this.finish()
      return await this.queue.profile!.report()
    } finally {
      this.queue.setProfiling(false)
    }
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return
    this.#disposed = true
    this.pool.trim()
    this.device.destroy()
  }
}

/** What reading a tensor of a dtype gives. */
export type Readable<D extends DType> = D extends 'u32'
  ? Uint32Array<ArrayBuffer>
  : D extends 'i32'
    ? Int32Array<ArrayBuffer>
    : Float32Array<ArrayBuffer>

function padded(data: ArrayBufferView<ArrayBuffer>): ArrayBufferView<ArrayBuffer> {
  if (data.byteLength % 4 === 0) return data
  const bytes = new Uint8Array(Math.ceil(data.byteLength / 4) * 4)
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
  return bytes
}
