import { bytesOf, type DType, decode, encode, type FloatType, type HostArray, viewAs } from '../core/dtype.ts'
import { GpuError, ResourceError } from '../core/errors.ts'
import { Pipelines } from './pipelines.ts'
import { type MemoryUse, Pool, put } from './pool.ts'
import type { KernelProfile } from './profile.ts'
import { CommandQueue } from './queue.ts'
import { Recording } from './recording.ts'
import { Scope } from './scope.ts'
import { Step, type StepCost, type StepOptions } from './step.ts'
import type { Tensor } from './tensor.ts'
import { Tuning } from './tuning.ts'
import { Workspace } from './workspace.ts'

/** What this device can do beyond the core of WebGPU. */
export interface Capabilities {
  /** Storage and arithmetic in half precision. */
  readonly f16: boolean
  readonly subgroups: boolean
  /** Invocations that run in step and whose loads are coalesced: as the adapter says, 32 where it does not. */
  readonly subgroupSize: number
  /** Times of single kernels. */
  readonly timestamps: boolean
  /** Lanes of a subgroup that multiplies 16 × 16 f16 matrices into f32 on matrix units; 0 without them. */
  readonly matrixUnits: number
}

/** How a {@link Gpu} is made. */
export interface GpuOptions {
  /** Most bytes of GPU memory to use; 15 GiB unless told, to leave room on a 16 GB card. */
  readonly memoryBudget?: number
  /** Keeps whatever must stay alive as long as the device: Dawn's root object in Node. */
  readonly root?: unknown
  /** Most bytes of one binding, where that should be less than the device allows: larger matrices lie in windows. */
  readonly bindingBytes?: number
  /** What the adapter calls itself, for reports. */
  readonly name?: string
  /** Waits for the GPU; a plain `await` unless told. */
  readonly rest?: <T>(work: Promise<T>) => Promise<T>
  /** Surrounds every tensor with a pattern that {@link Scope.checkGuards} looks for. For tests: it is slow. */
  readonly guards?: boolean
}

const unitsFeature = 'chromium-experimental-subgroup-matrix' as GPUFeatureName
const optionalFeatures: GPUFeatureName[] = ['shader-f16', 'subgroups', 'timestamp-query', unitsFeature]

/** What Dawn says of matrix units, which is no part of WebGPU yet. */
interface UnitsInfo {
  readonly subgroupMaxSize?: number
  readonly subgroupMatrixConfigs?: readonly {
    readonly componentType: string
    readonly resultComponentType: string
    readonly M: number
    readonly N: number
    readonly K: number
  }[]
}

function matrixUnits(device: GPUDevice): number {
  const { subgroupMaxSize = 0, subgroupMatrixConfigs = [] } = (device.adapterInfo ?? {}) as UnitsInfo
  const fits = subgroupMatrixConfigs.some(
    ({ componentType, resultComponentType, M, N, K }) =>
      componentType === 'f16' && resultComponentType === 'f32' && M === 16 && N === 16 && K === 16,
  )
  return fits && device.features.has(unitsFeature) && device.features.has('shader-f16') ? subgroupMaxSize : 0
}

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
  /** Whether the device is a processor that plays GPU: staging tiles or many workgroups gain nothing there. */
  readonly software: boolean
  /** Which kernel does what here, where there is a choice. */
  readonly tuning = new Tuning()
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
    this.software = device.adapterInfo?.isFallbackAdapter ?? false
    this.capabilities = {
      f16: device.features.has('shader-f16'),
      subgroups: device.features.has('subgroups'),
      subgroupSize: device.adapterInfo?.subgroupMinSize || 32,
      timestamps: device.features.has('timestamp-query'),
      matrixUnits: matrixUnits(device),
    }
    this.pipelines = new Pipelines(device, /llvmpipe/i.test(device.adapterInfo?.description ?? ''))
    this.pool = new Pool(
      device,
      options.memoryBudget ?? 15 * 2 ** 30,
      () => this.pipelines.forgetBindGroups(),
      options.bindingBytes,
    )
    this.queue = new CommandQueue(device, options.rest)
  }

  /** Makes a device on `root.adapter` with every optional feature and the largest limits that it offers. */
  static async open(
    root: { adapter: GPUAdapter; name?: string; rest?: GpuOptions['rest'] },
    options: GpuOptions = {},
  ): Promise<Gpu> {
    const { adapter, rest } = root
    const { limits } = adapter
    const device = await adapter.requestDevice({
      requiredFeatures: optionalFeatures.filter((feature) => adapter.features.has(feature)),
      requiredLimits: {
        maxBufferSize: limits.maxBufferSize,
        maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
        maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
        maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
        minUniformBufferOffsetAlignment: limits.minUniformBufferOffsetAlignment,
      },
    })
    return new Gpu(device, { root, name: root.name ?? adapter.info.description, rest, ...options })
  }

  /** Number of tensors' blocks that are lent out: the same after a step as before it. */
  get live(): number {
    return this.pool.use.live
  }

  /** Memory that is lent out, was lent out at most, and is kept for reuse. */
  get memory(): MemoryUse {
    return this.pool.use
  }

  /** Bytes that were read back from the GPU so far. */
  get bytesRead(): number {
    return this.queue.bytesRead
  }

  /** Starts to look for the most bytes lent out at once; the function it gives back says how many they were. */
  watchPeak(): () => number {
    return this.pool.watchPeak()
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
   * What `work` would need, before anything is allocated or run: ops are counted and their memory is added up.
   * @param work records on the step that it is given; what it makes must not be used afterwards.
   * @returns the most bytes in use at once, and the dispatches, operations and bytes.
   */
  plan(work: (step: Step) => void): StepPlan {
    let cost: StepCost | undefined
    const peakBytes = this.pool.imagine(() => {
      using step = new Step(this, { label: 'plan' })
      work(step)
      cost = step.cost
    })
    return { peakBytes, cost: cost! }
  }

  /**
   * Plans `work` and compares it with what is left of the memory budget.
   * @throws ResourceError with the numbers and the cure when it would not fit.
   */
  expectRoom(label: string, work: (step: Step) => void): StepPlan {
    const plan = this.plan(work)
    const { liveBytes } = this.memory
    const mebibytes = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`
    if (liveBytes + plan.peakBytes > this.pool.budget)
      throw new ResourceError(
        `Cannot run ${label}: it needs ${mebibytes(plan.peakBytes)} beside the ${mebibytes(liveBytes)} in use, and the ` +
          `budget is ${mebibytes(this.pool.budget)}. Use a smaller batch, an NF4 base, or checkpointing.`,
      )
    return plan
  }

  /**
   * Takes down what `work` records, without running it, to be run many times: see {@link Recording}.
   * @param work records on the step that it is given; it cannot read. What it keeps in a scope outlives the recording.
   * @param workspace memory to share with other recordings; what `work` does not keep is lost when another one runs.
   */
  record(work: (step: Step) => void, workspace?: Workspace): Recording {
    this.queue.check()
    const step = new Step(this, { label: 'recording' })
    let taken: ReturnType<CommandQueue['take']> | undefined
    let done = false
    const held = this.pool.hold(() => {
      try {
        taken = this.queue.take(() => work(step))
        done = true
      } finally {
        if (!done || workspace) step[Symbol.dispose]()
      }
    }, workspace?.spare)
    const { items, destroy } = taken!
    if (workspace) for (const block of held) put(workspace.spare, block)
    return new Recording(this.queue, items, step.cost, () => {
      step[Symbol.dispose]()
      if (!workspace) for (const block of held) this.pool.release(block)
      this.pipelines.forgetBindGroups()
      destroy()
    })
  }

  /** Memory for recordings that never run at the same time: see {@link Workspace}. */
  workspace(): Workspace {
    return new Workspace(this.pool)
  }

  /**
   * Rewrites a tensor, after everything recorded so far has read it.
   * @throws RangeError when the number of values is not the tensor's size.
   */
  write<D extends DType>(tensor: Tensor<D>, values: ArrayLike<number> | HostArray<D>): void {
    if (values.length !== tensor.size)
      throw new RangeError(`Cannot write ${tensor}: it has ${tensor.size} elements, got ${values.length}`)
    if (this.pool.imagining) return
    if (tensor.windows) {
      const columns = tensor.shape[1]
      let row = 0
      for (const window of tensor.windows) {
        const part = values as ArrayLike<number> & { slice(begin: number, end: number): HostArray<D> }
        this.write(window, part.slice(row * columns, (row + window.shape[0]) * columns))
        row += window.shape[0]
      }
      return
    }
    const native = viewAs(tensor.dtype, new ArrayBuffer(0)).constructor
    const host = values.constructor === native ? (values as HostArray<D>) : encode(tensor.dtype, values)
    this.queue.write(tensor.block.buffer, tensor.offset, padded(host))
  }

  /**
   * Rewrites some rows of a matrix, for weights that come in pieces.
   * @param first the first row; it and the number of rows must keep to multiples of four bytes.
   * @throws RangeError when the rows pass the end.
   */
  writeRows(tensor: Tensor<FloatType>, first: number, values: Float32Array): void {
    const columns = tensor.size / tensor.shape[0]
    const count = values.length / columns
    if (!Number.isInteger(count) || first < 0 || first + count > tensor.shape[0])
      throw new RangeError(`Cannot write ${values.length} values to ${tensor} from row ${first}`)
    let row = 0
    for (const window of tensor.windows ?? [tensor]) {
      const [begin, end] = [Math.max(first, row), Math.min(first + count, row + window.shape[0])]
      if (begin < end) {
        const host = encode(tensor.dtype, values.subarray((begin - first) * columns, (end - first) * columns))
        const offset = window.offset + (begin - row) * columns * bytesOf[tensor.dtype]
        this.queue.write(window.block.buffer, offset, padded(host))
      }
      row += window.shape[0]
    }
  }

  /** The elements of a tensor as its dtype holds them; f16 as bits. */
  async readRaw<D extends DType>(tensor: Tensor<D>): Promise<HostArray<D>> {
    if (tensor.windows) {
      const all = viewAs(tensor.dtype, new ArrayBuffer(tensor.bytes))
      let at = 0
      for (const window of tensor.windows) {
        all.set((await this.readRaw(window)) as never, at)
        at += window.size
      }
      return all
    }
    const buffer = await this.queue.read(tensor.block.buffer, Math.ceil(tensor.bytes / 4) * 4, tensor.offset)
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

/** What a step would need. */
export interface StepPlan {
  /** Most bytes lent out at once, as the pool rounds them. */
  readonly peakBytes: number
  readonly cost: StepCost
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
