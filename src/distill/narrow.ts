import { InterruptedError } from '../core/errors.ts'
import { Random } from '../core/random.ts'
import { type CpuTensor, cpuTensor, toFloat32 } from '../formats/tensor.ts'
import { columnSum } from '../kernels/column-sum.ts'
import { mul } from '../kernels/elementwise.ts'
import { Decoder } from '../models/decoder.ts'
import type { OpenModel } from '../models/open-model.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { drawBatch, uploadBatch } from '../train/batch.ts'
import type { NiwtRun } from './run.ts'

/** Rows a capability that the channels are judged by. */
const probeRows = 16
const probeBatch = 4

/**
 * Leaves the hidden channels of each FFN that carry least. What channel j adds to the residual stream is h_j times column j of
 * down_proj, so its energy is E[h_j²] ‖down_proj[:, j]‖², measured on rows of all capabilities. Channels stay whole: a row of
 * gate and up with its column of down.
 * @param tensors of the student, all channels wide, f32.
 * @param layers teacher layer of each student layer.
 * @returns the tensors, and by layer the share of the energy that was kept.
 * @throws RangeError when the width is no multiple of four, or not smaller than it was.
 */
export async function narrowFfn(
  run: NiwtRun,
  teacher: OpenModel,
  tensors: ReadonlyMap<string, CpuTensor>,
  layers: readonly number[],
  width: number,
): Promise<{ tensors: Map<string, CpuTensor>; kept: number[] }> {
  const { ffnWidth: full, width: outer } = teacher.config
  if (!Number.isInteger(width) || width % 4 !== 0 || width < 4 || width > full)
    throw new RangeError(`Cannot keep ${width} of ${full} hidden channels: give a multiple of four up to ${full}`)
  const energies = await channelEnergies(run, teacher)
  const narrow = new Map(tensors)
  const shares: number[] = []
  for (const [layer, teacherLayer] of layers.entries()) {
    const name = (part: string) => `model.layers.${layer}.mlp.${part}_proj.weight`
    const down = toFloat32(tensors.get(name('down'))!)
    const energy = energies[teacherLayer].map((square, j) => {
      let norm = 0
      for (let c = 0; c < outer; c++) norm += down[c * full + j] ** 2
      return square * norm
    })
    const kept = chooseChannels(energy, width)
    shares.push(kept.reduce((sum, j) => sum + energy[j], 0) / (energy.reduce((sum, value) => sum + value, 0) || 1))
    for (const part of ['gate', 'up']) {
      const values = toFloat32(tensors.get(name(part))!)
      const rows = new Float32Array(width * outer)
      for (const [i, j] of kept.entries()) rows.set(values.subarray(j * outer, (j + 1) * outer), i * outer)
      narrow.set(name(part), cpuTensor('F32', [width, outer], rows))
    }
    const columns = Float32Array.from(
      { length: outer * width },
      (_, i) => down[Math.floor(i / width) * full + kept[i % width]],
    )
    narrow.set(name('down'), cpuTensor('F32', [outer, width], columns))
  }
  return { tensors: narrow, kept: shares }
}

/** The channels of most energy, in their own order; of equal ones the first. */
export function chooseChannels(energy: ArrayLike<number>, count: number): number[] {
  return Array.from(energy, (value, j) => ({ value, j }))
    .sort((x, y) => y.value - x.value || x.j - y.j)
    .slice(0, count)
    .map(({ j }) => j)
    .sort((x, y) => x - y)
}

/** By layer of the teacher: sum of h² of each hidden channel over the scored tokens and those before them. */
async function channelEnergies(run: NiwtRun, files: OpenModel): Promise<Float64Array[]> {
  using teacher = await Decoder.open(run.gpu, files.weights, { storage: run.settings.capture.storage ?? 'f32' })
  const energies = Array.from({ length: teacher.config.layers }, () => new Float64Array(teacher.config.ffnWidth))
  const task = 'weigh hidden channels'
  const rounds = Math.ceil(probeRows / probeBatch)
  for (const [c, capability] of run.capabilities.entries()) {
    const random = new Random(run.seed + 4)
    for (let round = 0; round < rounds; round++) {
      if (run.signal?.aborted) throw new InterruptedError(`Stopped ${task}`)
      const batch = drawBatch(capability, random, probeBatch, run.settings.tokens)
      using step = run.gpu.step({ label: task })
      const sums: Tensor<'f32'>[] = []
      step.withoutGradients(() =>
        teacher.hidden(step, uploadBatch(step, batch).ids, {
          observe(name, x) {
            if (!name.endsWith('ffn.hidden')) return
            const flat = step.reshape(x as Tensor<'f32'>, [x.size / x.shape[2], x.shape[2]])
            sums.push(columnSum(step, mul(step, flat, flat), 'f32'))
          },
        }),
      )
      for (const [layer, sum] of sums.entries())
        for (const [j, value] of (await step.read(sum)).entries()) energies[layer][j] += value
      const done = c * rounds + round + 1
      run.onProgress({ task, done, total: rounds * run.capabilities.length, unit: 'batches' })
    }
  }
  return energies
}
