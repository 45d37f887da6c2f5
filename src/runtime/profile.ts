import { type Command, encode } from './command.ts'

/** What one kernel has done while profiling was on. */
export interface KernelProfile {
  /** `kernel.entry`. */
  readonly kernel: string
  dispatches: number
  ms: number
  flops: number
  bytes: number
}

interface Pending {
  readonly commands: readonly Command[]
  readonly queries: GPUQuerySet
  readonly resolved: GPUBuffer
  readonly staging: GPUBuffer
}

/** Times every dispatch with timestamp queries: each gets a pass of its own, so profiling slows the run a little. */
export class Profile {
  readonly #pending: Pending[] = []
  readonly #reads: Promise<void>[] = []
  readonly #kernels = new Map<string, KernelProfile>()

  encode(device: GPUDevice, encoder: GPUCommandEncoder, commands: readonly Command[]): void {
    const count = commands.length * 2
    const queries = device.createQuerySet({ type: 'timestamp', count })
    const resolved = device.createBuffer({ size: count * 8, usage: 0x200 | 0x4 }) // QUERY_RESOLVE | COPY_SRC
    const staging = device.createBuffer({ size: count * 8, usage: 0x1 | 0x8 }) // MAP_READ | COPY_DST
    for (const [i, command] of commands.entries()) {
      const pass = encoder.beginComputePass({
        timestampWrites: { querySet: queries, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 },
      })
      encode(pass, command)
      pass.end()
    }
    encoder.resolveQuerySet(queries, 0, count, resolved, 0)
    encoder.copyBufferToBuffer(resolved, 0, staging, 0, count * 8)
    this.#pending.push({ commands, queries, resolved, staging })
  }

  /** Called after a submit: starts reading the times of what was just encoded. */
  collect(): void {
    for (const pending of this.#pending.splice(0)) this.#reads.push(this.#read(pending))
  }

  /** Totals by kernel, slowest first, of everything submitted so far. */
  async report(): Promise<KernelProfile[]> {
    await Promise.all(this.#reads.splice(0))
    return [...this.#kernels.values()].sort((a, b) => b.ms - a.ms)
  }

  async #read({ commands, queries, resolved, staging }: Pending): Promise<void> {
    await staging.mapAsync(0x1)
    const times = new BigUint64Array(staging.getMappedRange())
    for (const [i, { entry, flops, bytes }] of commands.entries()) {
      const kernel = `${entry.kernel}.${entry.entry}`
      let total = this.#kernels.get(kernel)
      if (!total) {
        total = { kernel, dispatches: 0, ms: 0, flops: 0, bytes: 0 }
        this.#kernels.set(kernel, total)
      }
      total.dispatches++
      total.ms += Number(times[2 * i + 1] - times[2 * i]) / 1e6
      total.flops += flops
      total.bytes += bytes
    }
    staging.destroy()
    resolved.destroy()
    queries.destroy()
  }
}
