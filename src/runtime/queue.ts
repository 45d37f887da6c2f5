import { DeviceLostError, GpuError, ResourceError } from '../core/errors.ts'
import { type Command, encode } from './command.ts'
import type { Entry } from './entry.ts'
import { Profile } from './profile.ts'

const arenaBytes = 1 << 18
const mapRead = 0x1 | 0x8 // MAP_READ | COPY_DST
const mostCommands = 256

/**
 * Collects commands and submits them in order. Parameters of all commands of a submit lie in one arena buffer that
 * is written once before it; the queue keeps writes and submits in order, so the arena is used again at once.
 */
export class CommandQueue {
  readonly #device: GPUDevice
  readonly #arena = new DataView(new ArrayBuffer(arenaBytes))
  readonly #alignment: number
  readonly arenaBuffer: GPUBuffer
  #arenaUsed = 0
  #commands: Command[] = []
  #fault: Error | undefined
  readonly #staging = new Map<number, GPUBuffer[]>()
  /** Time, operations and bytes of every kernel while profiling is on. */
  profile: Profile | undefined

  constructor(device: GPUDevice) {
    this.#device = device
    this.#alignment = device.limits.minUniformBufferOffsetAlignment
    this.arenaBuffer = device.createBuffer({ size: arenaBytes, usage: 0x40 | 0x8, label: 'params' })
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

  /** Writes the parameters of `entry` into the arena and returns their offset. */
  pushParams(entry: Entry, values: Readonly<Record<string, number>>): number | undefined {
    if (!entry.params) return undefined
    const { bytes, members } = entry.params
    if (this.#arenaUsed + bytes > arenaBytes) this.submit()
    const offset = this.#arenaUsed
    for (const name in members) {
      const member = members[name]
      const at = offset + member.offset
      if (member.type === 'f32') this.#arena.setFloat32(at, values[name], true)
      else if (member.type === 'i32') this.#arena.setInt32(at, values[name], true)
      else this.#arena.setUint32(at, values[name], true)
    }
    this.#arenaUsed = Math.ceil((offset + bytes) / this.#alignment) * this.#alignment
    return offset
  }

  push(command: Command): void {
    this.#commands.push(command)
    if (this.#commands.length >= mostCommands) this.submit()
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
    if (this.#commands.length === 0) return
    const commands = this.#commands
    this.#commands = []
    if (this.#arenaUsed > 0)
      this.#device.queue.writeBuffer(this.arenaBuffer, 0, this.#arena.buffer as ArrayBuffer, 0, this.#arenaUsed)
    this.#arenaUsed = 0
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
    this.submit()
    this.#device.queue.writeBuffer(buffer, offset, data.buffer, data.byteOffset, data.byteLength)
  }

  /**
   * Copies `bytes` (a multiple of four) of a buffer to the host, after everything recorded so far.
   * @throws DeviceLostError, GpuError or ResourceError when the device reported a fault.
   */
  async read(buffer: GPUBuffer, bytes: number, offset = 0): Promise<ArrayBuffer> {
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
      await staging.mapAsync(0x1, 0, bytes)
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
    await this.#device.queue.onSubmittedWorkDone()
    this.check()
  }

  /** Starts or stops timing every kernel. */
  setProfiling(on: boolean): void {
    this.submit()
    this.profile = on ? new Profile() : undefined
  }
}
