import { ArrowRouter, arrowPrototypes } from '../adapters/arrow.ts'
import { LinearRouter, type RoutedState } from '../adapters/linear-router.ts'
import { PrototypeRouter, pool, readRouter } from '../adapters/router.ts'
import type { CpuTensor } from '../formats/tensor.ts'
import { headCrossEntropy } from '../kernels/head-loss.ts'
import { weightedMean } from '../kernels/weighted-mean.ts'
import { pickScored, valuesAt } from '../train/picked.ts'
import type { CaptureRows } from './capture-store.ts'
import type { NiwtRun } from './run.ts'
import { idsOf, targetsOf } from './term-inputs.ts'
import { reserved, reservedRows, type Workbench } from './workbench.ts'

/** What a way of choosing adapters comes to, on captured rows kept back from training. */
export interface RouterScore {
  /** Share of rows that get the adapter of their capability. */
  readonly accuracy: number
  /** Cross entropy of the trained tokens under the adapters that were chosen, in nats a token. */
  readonly loss: number
}

/** The trained router, which is packed, the nearest mean of pooled states, Arrow's, and the bounds of all. */
export interface RouterScores {
  readonly trained: RouterScore
  readonly prototypes: RouterScore
  readonly arrow: RouterScore
  readonly oracle: RouterScore
  readonly random: RouterScore
  /** Rows that were routed. */
  readonly n: number
}

const fitRows = 120

/** A prompt is judged by its first tokens. */
const usualPromptTokens = 8

/** A row, what is known of its prompt, and what each adapter would cost. */
interface Trial extends RoutedState {
  readonly prompt: readonly number[]
  readonly losses: Readonly<Record<string, number>>
}

/**
 * Fits the routers of a student. Restricted capabilities have no place in them.
 * @returns what is packed, the trained router of the open capabilities; and how each router does.
 */
export async function fitRouter(
  bench: Workbench,
): Promise<{ capabilities: readonly string[]; tensors: Map<string, CpuTensor>; scores: RouterScores }> {
  const { run, student, captures } = bench
  const { backbone } = student
  const { width, layers } = backbone.config
  const open = run.capabilities.map(({ name }) => name).filter((name) => !run.restricted?.includes(name))
  if (open.length === 0) throw new RangeError('Cannot fit a router: all capabilities are restricted')

  const fitted = (name: string) => {
    const capture = captures.get(name)!
    return Math.min(fitRows, capture.rows - reservedRows(capture))
  }
  const total = open.reduce((sum, name) => sum + fitted(name) + reservedRows(captures.get(name)!), 0)
  let done = 0
  const advance = () => run.onProgress({ task: 'router', done: ++done, total, unit: 'rows' })

  const examples: RoutedState[] = []
  const means: Float32Array[] = []
  for (const capability of open) {
    const capture = captures.get(capability)!
    const count = fitted(capability)
    const states: Float32Array[] = []
    const rows = await capture.read(
      Array.from({ length: count }, (_, i) => i),
      ['ids', 'weights'],
    )
    for (let i = 0; i < count; i++) {
      states.push(await pool(backbone, promptOf(run, rows, i)))
      advance()
    }
    examples.push(...states.map((state) => ({ state, capability })))
    const mean = new Array<number>(width).fill(0)
    for (const state of states) for (let c = 0; c < width; c++) mean[c] += state[c] / count
    means.push(Float32Array.from(mean))
  }
  const prototypes = new PrototypeRouter(open, means)
  const tensors = LinearRouter.fit(open, examples).toTensors()
  // Scored as it is packed.
  const trained = readRouter('linear', tensors, open, open)!
  const directions = await Promise.all(
    open.map((name) => arrowPrototypes(student.adapters.get(name)!, layers, backbone)),
  )
  const arrow = new ArrowRouter(backbone, open, directions)

  const trials: Trial[] = []
  for (const name of open) trials.push(...(await tryOut(bench, name, open, advance)))
  const chosen = async (choose: (trial: Trial) => string | Promise<string>): Promise<RouterScore> => {
    let [right, loss] = [0, 0]
    for (const trial of trials) {
      const capability = await choose(trial)
      if (capability === trial.capability) right++
      loss += trial.losses[capability]
    }
    return { accuracy: right / trials.length, loss: loss / trials.length }
  }
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const scores: RouterScores = {
    trained: await chosen(({ state }) => trained.choose(state).capability),
    prototypes: await chosen(({ state }) => prototypes.choose(state).capability),
    arrow: await chosen(async ({ prompt }) => (await arrow.choose(prompt)).capability),
    oracle: await chosen(({ capability }) => capability),
    random: { accuracy: 1 / open.length, loss: mean(trials.map(({ losses }) => mean(Object.values(losses)))) },
    n: trials.length,
  }
  return { capabilities: open, tensors, scores }
}

/** The reserved rows of a capability: how its prompts look, and what each adapter makes of the rest. */
async function tryOut(
  { run, student, captures }: Workbench,
  capability: string,
  open: readonly string[],
  advance: () => void,
): Promise<Trial[]> {
  const { backbone, adapters } = student
  const capture = captures.get(capability)!
  const trials: Trial[] = []
  for (const index of reserved(capture)) {
    const row = await capture.read([index], ['ids', 'weights'])
    const weights = row.columns.get('weights')!.values
    const total = (weights as Float32Array).reduce((sum, weight) => sum + weight, 0)
    const prompt = promptOf(run, row, 0)
    const losses: Record<string, number> = {}
    for (const name of open) {
      using step = run.gpu.step({ label: 'try adapters' })
      const loss = step.withoutGradients(() => {
        const ids = step.upload('u32', [1, row.tokens], idsOf(row))
        const picked = pickScored(step, backbone.hidden(step, ids, { updates: adapters.get(name)! }), weights)
        const n = picked.states.shape[0]
        const targets = step.upload('u32', [n], valuesAt(picked, targetsOf(row)))
        const values = headCrossEntropy(step, backbone.normed(step, picked.states), backbone.headWeight, targets)
        return weightedMean(step, values, step.upload('f32', [n], valuesAt(picked, weights, 1, 0)), total)
      })
      losses[name] = await step.readNumber(loss)
    }
    trials.push({ state: await pool(backbone, prompt), capability, prompt, losses })
    advance()
  }
  return trials
}

/** The first tokens of row `i`. */
function promptOf(run: NiwtRun, rows: CaptureRows, i: number): number[] {
  const { promptTokens = usualPromptTokens } = run.settings.distil
  const { values } = rows.columns.get('ids')!
  const begin = i * (rows.tokens + 1)
  return Array.from(values.subarray(begin, begin + Math.min(promptTokens, rows.tokens)))
}
