import { DeviceLostError, GpuError, ResourceError } from '../core/errors.ts'
import { type Command, encode } from './command.ts'
import type { Entry } from './entry.ts'
import { Profile } from './profile.ts'

const arenaBytes = 1 << 18

/** Parameters of many commands, bound with dynamic offsets. */
export interface Arena {
  readonly id: number
  readonly buffer: GPUBuffer
  readonly data: DataView<ArrayBuffer>
  used: number
}

/** A range of bytes that is written into a buffer. */
interface Write {
  readonly buffer: GPUBuffer
  readonly offset: number
  readonly data: ArrayBufferView<ArrayBuffer>
}

/** What a recording holds: commands and writes in their order. */
export type Item = Command | Write

const mapRead = 0x1 | 0x8 // MAP_READ | COPY_DST
const mostCommands = 256

/**
 * Collects commands and submits them in order. Parameters of all commands of a submit lie in one arena buffer that
 * is written once before it; the queue keeps writes and submits in order, so the arena is used again at once.
 */
export class CommandQueue {
  readonly #device: GPUDevice
  readonly #rest: <T>(work: Promise<T>) => Promise<T>
  readonly #alignment: number
  #arenas = 0
  #arena: Arena
  #taken: { readonly items: Item[]; readonly arenas: Arena[] } | undefined
  #commands: Command[] = []
  #fault: Error | undefined
  readonly #staging = new Map<number, GPUBuffer[]>()
  /** Time, operations and bytes of every kernel while profiling is on. */
  profile: Profile | undefined
  /** Bytes that came back to the host so far. */
  bytesRead = 0

  /** @param rest how to wait for the device. */
  constructor(device: GPUDevice, rest: <T>(work: Promise<T>) => Promise<T> = (work) => work) {
    this.#device = device
    const { minUniformBufferOffsetAlignment, minStorageBufferOffsetAlignment } = device.limits
    this.#alignment = Math.max(minUniformBufferOffsetAlignment, minStorageBufferOffsetAlignment)
    this.#rest = rest
    this.#arena = this.#newArena()
    device.addEventListener('uncapturederror', (event) => {
      const { error } = event as GPUUncapturedErrorEvent
      const outOfMemory = error.constructor.name === 'GPUOutOfMemoryError'
      this.#fault ??= outOfMemory
        ? new ResourceError(`The GPU is out of memory: ${error.message}. Use a smaller batch or an NF4 base.`)
        : new GpuError(error.message)
    })
    device.lost.then((info) => {
      this.#fault = new DeviceLostError(
        `The GPU device was lost (${info.message || info.reason}). Open a new one and load from the last checkpoint.`,
      )
    })
  }

  /** Writes the parameters of `entry` into an arena; undefined when it has none. */
  pushParams(
    entry: Entry,
    values: Readonly<Record<string, number>>,
  ): { readonly arena: Arena; readonly offset: number } | undefined {
    if (!entry.params) return undefined
    const { bytes, members } = entry.params
    if (this.#arena.used + bytes > arenaBytes) {
      if (this.#taken) {
        this.#arena = this.#newArena()
        this.#taken.arenas.push(this.#arena)
      } else this.submit()
    }
    const { data, used: offset } = this.#arena
    for (const name in members) {
      const member = members[name]
      const at = offset + member.offset
      if (member.type === 'f32') data.setFloat32(at, values[name], true)
      else if (member.type === 'i32') data.setInt32(at, values[name], true)
      else data.setUint32(at, values[name], true)
    }
    this.#arena.used = Math.ceil((offset + bytes) / this.#alignment) * this.#alignment
    return { arena: this.#arena, offset }
  }

  push(command: Command): void {
    if (this.#taken) this.#taken.items.push(command)
    else {
      this.#commands.push(command)
      if (this.#commands.length >= mostCommands) this.submit()
    }
  }

  /**
   * Takes down what `work` records instead of running it.
   * @returns the items, and what destroys their parameters.
   */
  take(work: () => void): { items: Item[]; destroy: () => void } {
    if (this.#taken) throw new Error('Cannot record within a recording')
    this.submit()
    const outer = this.#arena
    this.#arena = this.#newArena()
    const arenas = [this.#arena]
    const items: Item[] = []
    this.#taken = { items, arenas }
    try {
      work()
    } finally {
      this.#taken = undefined
      this.#arena = outer
      for (const { buffer, data, used } of arenas)
        if (used > 0) this.#device.queue.writeBuffer(buffer, 0, data.buffer, 0, used)
    }
    const destroy = () => {
      for (const { buffer } of arenas) buffer.destroy()
    }
    return { items, destroy }
  }

  /** Runs what {@link take} took down. */
  replay(items: readonly Item[]): void {
    this.submit()
    let commands: Command[] = []
    const flush = () => {
      if (commands.length > 0) this.#send(commands)
      commands = []
    }
    for (const item of items) {
      if ('data' in item) {
        flush()
        const { buffer, offset, data } = item
        this.#device.queue.writeBuffer(buffer, offset, data.buffer, data.byteOffset, data.byteLength)
      } else if (commands.push(item) >= mostCommands) flush()
    }
    flush()
  }

  #newArena(): Arena {
    const buffer = this.#device.createBuffer({ size: arenaBytes, usage: 0x40 | 0x80 | 0x8, label: 'params' })
    return { id: this.#arenas++, buffer, data: new DataView(new ArrayBuffer(arenaBytes)), used: 0 }
  }

  /** Throws what the device reported since the last look, if anything. */
  check(): void {
    const fault = this.#fault
    if (!fault) return
    if (!(fault instanceof DeviceLostError)) this.#fault = undefined
    throw fault
  }

  /** Sends all recorded commands to the device. */
  submit(): void {
    if (this.#taken || this.#commands.length === 0) return
    const commands = this.#commands
    this.#commands = []
    const { buffer, data, used } = this.#arena
    if (used > 0) this.#device.queue.writeBuffer(buffer, 0, data.buffer, 0, used)
    this.#arena.used = 0
    this.#send(commands)
  }

  #send(commands: readonly Command[]): void {
    const encoder = this.#device.createCommandEncoder()
    if (this.profile) this.profile.encode(this.#device, encoder, commands)
    else {
      const pass = encoder.beginComputePass()
      for (const command of commands) encode(pass, command)
      pass.end()
    }
    this.#device.queue.submit([encoder.finish()])
    this.profile?.collect()
  }

  /** Writes bytes into a buffer after everything recorded so far. `data` must be a multiple of four bytes long. */
  write(buffer: GPUBuffer, offset: number, data: ArrayBufferView<ArrayBuffer>): void {
    if (this.#taken) {
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice()
      this.#taken.items.push({ buffer, offset, data: bytes })
      return
    }
    this.submit()
    this.#device.queue.writeBuffer(buffer, offset, data.buffer, data.byteOffset, data.byteLength)
  }

  /**
   * Copies `bytes` (a multiple of four) of a buffer to the host, after everything recorded so far.
   * @throws DeviceLostError, GpuError or ResourceError when the device reported a fault.
   */
  async read(buffer: GPUBuffer, bytes: number, offset = 0): Promise<ArrayBuffer> {
    this.bytesRead += bytes
    if (this.#taken) throw new Error('Cannot read from the GPU within a recording: read after replay()')
    this.submit()
    this.check()
    const capacity = Math.max(256, 2 ** Math.ceil(Math.log2(bytes)))
    const staging =
      this.#staging.get(capacity)?.pop() ??
      this.#device.createBuffer({ size: capacity, usage: mapRead, label: 'staging' })
    const encoder = this.#device.createCommandEncoder()
    encoder.copyBufferToBuffer(buffer, offset, staging, 0, bytes)
    this.#device.queue.submit([encoder.finish()])
    try {
      await this.#rest(staging.mapAsync(0x1, 0, bytes))
    } catch (error) {
      await Promise.race([this.#device.lost, new Promise((resolve) => setTimeout(resolve, 100))])
      this.check()
      throw new GpuError(`Cannot read from the GPU: ${error instanceof Error ? error.message : String(error)}`)
    }
    const result = staging.getMappedRange(0, bytes).slice(0)
    staging.unmap()
    const free = this.#staging.get(capacity)
    if (free) free.push(staging)
    else this.#staging.set(capacity, [staging])
    this.check()
    return result
  }

  /** Resolves when the device has done everything recorded so far. */
  async finish(): Promise<void> {
    this.submit()
    await this.#rest(this.#device.queue.onSubmittedWorkDone())
    this.check()
  }

  /** Starts or stops timing every kernel. */
  setProfiling(on: boolean): void {
    this.submit()
    this.profile = on ? new Profile() : undefined
  }
}
