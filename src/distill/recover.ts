import { argmax } from '../kernels/select.ts'
import { trainLoop } from '../train/loop.ts'
import { Optimiser } from '../train/optimiser.ts'
import { anchoredTerms } from './losses.ts'
import type { NiwtRun } from './run.ts'
import { drawRows, reserved, type Workbench, weigh } from './workbench.ts'

/**
 * Checks every capability on captured rows that training did not see; one that keeps less of the teacher's accuracy
 * than its contract asks is anchored again, its adapter alone, the backbone frozen.
 * @returns the names of the capabilities that were trained further.
 */
export async function recover(run: NiwtRun, bench: Workbench): Promise<string[]> {
  const { recoverySteps, adapterLr } = run.settings.distil
  const recovered: string[] = []
  for (const { capability, retainFraction } of run.contracts) {
    const before = await retained(run, bench, capability)
    if (before >= retainFraction || recoverySteps === 0) continue
    recovered.push(capability)
    const adapter = bench.student.adapters.get(capability)!
    const capture = bench.captures.get(capability)!
    const kept = await adapter.toTensors('F32')
    {
      using optimiser = new Optimiser(run.gpu, adapter.parameters)
      const offset = run.settings.distil.jointSteps + run.settings.distil.adapterSteps
      const lr = (index: number) => 0.3 * adapterLr * (1 - index / recoverySteps)
      await trainLoop({
        task: `recover ${capability}`,
        gpu: run.gpu,
        steps: recoverySteps,
        lr,
        loss(step, index) {
          const rows = drawRows(run, capture, capability, offset + index)
          const parts = anchoredTerms(
            step,
            bench.student.backbone,
            adapter,
            capture,
            rows,
            bench.architecture.anchors,
            bench.bases.get(capability)!,
          )
          return {
            total: weigh(step, parts, { activation: 0.1 * run.settings.distil.alpha, attention: 0 }),
            terms: { ...parts },
          }
        },
        update: (step, gradients, index) => optimiser.update(step, gradients, lr(index)),
        onProgress: run.onProgress,
        signal: run.signal,
      })
    }
    // What did not help is undone: an adapter never gets worse by recovery.
    if ((await retained(run, bench, capability)) < before)
      for (const [name, tensor] of kept)
        run.gpu.write(adapter.parameters.get(name)!, new Float32Array(tensor.data.buffer))
  }
  return recovered
}

/** Student accuracy over teacher accuracy on the trained tokens of the reserved rows of a capability. */
async function retained(run: NiwtRun, { student, captures }: Workbench, capability: string): Promise<number> {
  const capture = captures.get(capability)!
  const rows = reserved(capture)
  const of = (name: string, row: number) => {
    const { width, values } = capture.columns.get(name)!
    return values.subarray(row * capture.tokens * width, (row + 1) * capture.tokens * width)
  }
  using step = run.gpu.step({ label: 'recovery check' })
  const ids = step.upload(
    'u32',
    [rows.length, capture.tokens],
    rows.flatMap((row) => [...of('ids', row)]),
  )
  const best = await step.read(
    argmax(step, student.backbone.forward(step, ids, { updates: student.adapters.get(capability)! })),
  )
  let right = 0
  let teacherRight = 0
  for (const [i, row] of rows.entries()) {
    const [targets, weights, top] = [of('targets', row), of('weights', row), of('top.ids', row)]
    const k = top.length / capture.tokens
    for (let t = 0; t < capture.tokens; t++) {
      if (weights[t] === 0) continue
      if (best[i * capture.tokens + t] === targets[t]) right++
      if (top[t * k] === targets[t]) teacherRight++
    }
  }
  return teacherRight === 0 ? 1 : right / teacherRight
}
