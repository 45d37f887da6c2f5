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
/** Cost ~ size^power: 1 is linear, T × T would be 2. What falls out of a cache on the way costs up to a quarter. */
const mostPower = 1.25
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
    const sizes = exponents.map((exponent) => 2 ** exponent)
    const power = powerOf(
      sizes,
      nanoseconds.map((ns, i) => ns * sizes[i]),
    )
    times.push([name, ...nanoseconds.map((ns) => ns.toFixed(2)), power.toFixed(2), verdict(power)])
  }
  console.log(`Time per element in ns; time ~ elements^power, at most ${mostPower}\n`)
  console.log(table(['op', ...exponents.map((e) => `2^${e}`), 'power', 'verdict'], times))

  const memory: string[][] = []
  for (const backward of [false, true]) {
    const bytes = tokenCounts.map((tokens) => attentionBytes(gpu, tokens, backward))
    await gpu.finish()
    const power = powerOf(tokenCounts, bytes)
    const name = backward ? 'attention, with gradient' : 'attention'
    memory.push([name, ...bytes.map((b) => (b / 1e6).toFixed(2)), power.toFixed(2), verdict(power)])
  }
  console.log(`\nMemory of a step in MB for T tokens; memory ~ T^power, at most ${mostPower}\n`)
  console.log(table(['op', ...tokenCounts.map((tokens) => `T = ${tokens}`), 'power', 'verdict'], memory))
  return [...times, ...memory].every((row) => row.at(-1) === 'as it should')
}

function verdict(power: number): string {
  return power <= mostPower ? 'as it should' : 'too fast'
}

/** The power p of cost ~ size^p that fits best: the slope of the logarithms by least squares. */
export function powerOf(sizes: readonly number[], costs: readonly number[]): number {
  const [x, y] = [sizes.map(Math.log), costs.map(Math.log)]
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length
  const [mx, my] = [mean(x), mean(y)]
  const shared = x.reduce((sum, value, i) => sum + (value - mx) * (y[i] - my), 0)
  return shared / x.reduce((sum, value) => sum + (value - mx) ** 2, 0)
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
