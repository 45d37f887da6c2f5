// Does the cost of an op grow as it should: time with the number of elements, attention's memory with the tokens.
import { table } from '../src/cli/output.ts'
import { attention } from '../src/kernels/attention.ts'
import { silu } from '../src/kernels/elementwise.ts'
import { rmsNorm } from '../src/kernels/rms-norm.ts'
import { softmax } from '../src/kernels/softmax.ts'
import type { Gpu } from '../src/runtime/gpu.ts'
import type { Step } from '../src/runtime/step.ts'
import type { Tensor } from '../src/runtime/tensor.ts'
import type { Stopwatch } from './stopwatch.ts'

const columns = 512
const exponents = [16, 18, 20, 22, 24]
/** An element of the largest tensor may cost this many times what one costs at the best size. */
const mostTime = 1.5
/** Twice the tokens may cost this many times the memory; T × T would cost four times. */
const mostMemory = 2.2
const tokenCounts = [128, 256, 512, 1024, 2048]

/** Prints both tables with a verdict a line. @returns whether every cost grows as it should. */
export async function printGrowth(gpu: Gpu, time: Stopwatch): Promise<boolean> {
  const ops: Record<string, (step: Step, x: Tensor<'f32'>, weight: Tensor<'f32'>) => Tensor> = {
    silu,
    rmsNorm,
    softmax,
  }
  const times: string[][] = []
  for (const [name, op] of Object.entries(ops)) {
    const nanoseconds: number[] = []
    for (const exponent of exponents) {
      using scope = gpu.scope('growth')
      const size = 2 ** exponent
      const x = scope.filled('f32', [size / columns, columns], 1)
      const weight = scope.filled('f32', [columns], 1)
      const { median } = await time((step) => step.withoutGradients(() => void op(step, x, weight)))
      nanoseconds.push((median * 1e6) / size)
      gpu.pool.trim()
    }
    const growth = nanoseconds.at(-1)! / Math.min(...nanoseconds)
    times.push([name, ...nanoseconds.map((ns) => ns.toFixed(2)), growth.toFixed(2), verdict(growth, mostTime)])
  }
  console.log(`Time per element in ns; the last size against the best may be at most ${mostTime}\n`)
  console.log(table(['op', ...exponents.map((e) => `2^${e}`), 'growth', 'verdict'], times))

  const memory: string[][] = []
  for (const backward of [false, true]) {
    const bytes = tokenCounts.map((tokens) => attentionBytes(gpu, tokens, backward))
    await gpu.finish()
    const growth = Math.max(...bytes.slice(1).map((now, i) => now / bytes[i]))
    const name = backward ? 'attention, with gradient' : 'attention'
    memory.push([name, ...bytes.map((b) => (b / 1e6).toFixed(2)), growth.toFixed(2), verdict(growth, mostMemory)])
  }
  console.log(`\nMemory of a step in MB for T tokens; twice as many may cost at most ${mostMemory} times as much\n`)
  console.log(table(['op', ...tokenCounts.map((tokens) => `T = ${tokens}`), 'growth', 'verdict'], memory))
  return [...times, ...memory].every((row) => row.at(-1) === 'as it should')
}

function verdict(growth: number, most: number): string {
  return growth <= most ? 'as it should' : 'too fast'
}

/** Bytes that a step of attention holds beside its inputs: 4 heads of 64. */
function attentionBytes(gpu: Gpu, tokens: number, backward: boolean): number {
  using scope = gpu.scope('growth')
  const [q, k, v] = [1, 2, 3].map((value) => scope.filled('f32', [1, tokens, 4, 64], value))
  for (const input of [q, k, v]) input.requiresGrad = backward
  const before = gpu.memory.liveBytes
  using step = gpu.step()
  const y = attention(step, q, k, v)
  if (backward) step.backward(y, { seed: y })
  return gpu.memory.liveBytes - before
}
