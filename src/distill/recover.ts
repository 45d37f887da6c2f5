import { trainLoop } from '../train/loop.ts'
import { Optimiser } from '../train/optimiser.ts'
import { likeliest, pickScored } from '../train/picked.ts'
import type { CaptureRows } from './capture-store.ts'
import { idsOf, targetsOf } from './term-inputs.ts'
import { reserved, type Workbench, weigh } from './workbench.ts'

/**
 * Checks every capability on captured rows that training did not see; one that keeps less of the teacher's accuracy
 * than its contract asks is anchored again, its adapter alone, the backbone frozen. Gradients are never projected.
 * @param offset step from which the rows are drawn.
 * @returns the names of the capabilities that were trained further.
 */
export async function recover(bench: Workbench, offset: number): Promise<string[]> {
  const { run } = bench
  const { recoverySteps, adapterLr, alpha } = run.settings.distil
  const recovered: string[] = []
  if (recoverySteps === 0) return recovered
  for (const { capability, retainFraction } of run.contracts) {
    const before = await retained(bench, capability)
    if (before >= retainFraction) continue
    recovered.push(capability)
    const adapter = bench.student.adapters.get(capability)!
    const kept = await adapter.toTensors('F32')
    {
      using optimiser = new Optimiser(run.gpu, adapter.parameters)
      const lr = (index: number) => 0.3 * adapterLr * (1 - index / recoverySteps)
      await trainLoop({
        task: `recover ${capability}`,
        gpu: run.gpu,
        steps: recoverySteps,
        lr,
        async prepare(index) {
          await bench.fetch(capability, offset + index)
          optimiser.begin(lr(index))
        },
        feed: () => bench.shapeOf(capability),
        loss(step) {
          const parts = bench.terms(step, capability, false)
          return { total: weigh(step, parts, { activation: 0.1 * alpha, attention: 0 }), terms: { ...parts } }
        },
        update: (step, gradients) => optimiser.update(step, gradients),
        onProgress: run.onProgress,
        ...(run.signal && { signal: run.signal }),
      })
    }
    // What did not help is undone: an adapter never gets worse by recovery.
    if ((await retained(bench, capability)) < before)
      for (const [name, tensor] of kept)
        run.gpu.write(adapter.parameters.get(name)!, new Float32Array(tensor.data.buffer))
  }
  return recovered
}

/**
 * Student accuracy over teacher accuracy on the trained tokens of the reserved rows of a capability; where the capture does
 * not know the teacher's likeliest token, over 1.
 */
async function retained({ run, student, captures }: Workbench, capability: string): Promise<number> {
  const capture = captures.get(capability)!
  let right = 0
  let teacherRight = 0
  const all = reserved(capture)
  const each = Math.max(1, run.settings.distil.rows[capability])
  for (let begin = 0; begin < all.length; begin += each) {
    const rows = await capture.read(all.slice(begin, begin + each))
    const weights = rows.columns.get('weights')!.values
    const targets = targetsOf(rows)
    const top = rows.columns.get('top.ids')
    const shares = rows.columns.get('top.probabilities')
    using step = run.gpu.step({ label: 'recovery check' })
    const { positions, best } = step.withoutGradients(() => {
      const { backbone, adapters } = student
      const ids = step.upload('u32', [rows.rows, rows.tokens], idsOf(rows))
      const hidden = backbone.hidden(step, ids, { updates: adapters.get(capability)! })
      const picked = pickScored(step, hidden, weights)
      return { ...picked, best: likeliest(step, backbone, backbone.normed(step, picked.states)) }
    })
    const found = await step.read(best)
    for (const [i, position] of positions.entries()) {
      if (found[i] === targets[position]) right++
      if (!top || mostLikely(top, shares!, position) === targets[position]) teacherRight++
    }
    run.onProgress({
      ...{ task: `check ${capability}`, unit: 'rows' },
      ...{ done: Math.min(begin + each, all.length), total: all.length },
    })
  }
  return teacherRight === 0 ? 1 : right / teacherRight
}

type Column = CaptureRows['columns'] extends ReadonlyMap<string, infer T> ? T : never

/** The teacher's likeliest token at a place; of draws the one that was drawn most. */
function mostLikely({ shape, values: ids }: Column, { values: shares }: Column, position: number): number {
  const width = shape[1]
  let best = position * width
  for (let i = best + 1; i < (position + 1) * width; i++) if (shares[i] > shares[best]) best = i
  return ids[best]
}
