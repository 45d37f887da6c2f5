// Writes what make-qlora.py needs into the folder named on the command line: initial.safetensors, the adapter that the run
// of tests/train/qlora-case.ts begins with, and run.json, its settings and the ids of every step.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeSafetensors } from '../../src/formats/safetensors.ts'
import { openGpuRoot } from '../../src/host/gpu-root.ts'
import { Gpu } from '../../src/runtime/gpu.ts'
import { FinetuneBench } from '../../src/train/finetune-bench.ts'
import { openBase, openRows } from '../../src/train/finetune-inputs.ts'
import { qloraRun, wholeSteps } from '../train/qlora-case.ts'

const [folder] = process.argv.slice(2)
using gpu = await Gpu.open(await openGpuRoot())
const options = await qloraRun(gpu, wholeSteps)
await using base = await openBase(options)
await using rows = await openRows(options, base, new Date(0))
using bench = await FinetuneBench.open(options, base, rows)
await writeFile(join(folder, 'initial.safetensors'), writeSafetensors(await bench.adapter.toTensors('F32')))
const steps: { rows: number; ids: number[]; targets: number[]; weights: number[] }[] = []
for (let index = 0; index < wholeSteps; index++) {
  const { parts } = await bench.data.step(index)
  const [{ rows: count, ids, targets, weights }] = parts
  steps.push({ rows: count, ids: [...ids], targets: [...targets], weights: [...weights] })
}
await writeFile(join(folder, 'run.json'), JSON.stringify({ settings: options.settings, steps }))
