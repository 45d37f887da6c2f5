import { PrototypeRouter, pool } from '../adapters/router.ts'
import { type CpuTensor, cpuTensor } from '../formats/tensor.ts'
import type { NiwtRun } from './run.ts'
import { reserved, reservedRows, type Workbench } from './workbench.ts'

const fitRows = 120

/**
 * Fits the router: a prototype for each capability, the mean of the pooled backbone states of its captured rows.
 * @returns the prototypes f32 (capabilities, C), and the share of reserved rows that go to the right adapter.
 */
export async function fitRouter(
  run: NiwtRun,
  { student, captures }: Workbench,
): Promise<{ prototypes: CpuTensor; accuracy: number }> {
  const { width } = student.backbone.config
  const rows: number[][] = []
  const states = async (name: string, indices: readonly number[]) => {
    const capture = captures.get(name)!
    const { values } = capture.columns.get('ids')!
    const result: Float32Array[] = []
    for (const row of indices)
      result.push(
        await pool(
          student.backbone,
          Array.from(values.subarray(row * capture.tokens, row * capture.tokens + promptTokens)),
        ),
      )
    return result
  }
  for (const { name } of run.capabilities) {
    const mean = new Array<number>(width).fill(0)
    const fitted = await states(
      name,
      Array.from({ length: Math.min(fitRows, captures.get(name)!.rows - reservedRows) }, (_, i) => i),
    )
    for (const state of fitted) for (let c = 0; c < width; c++) mean[c] += state[c] / fitted.length
    rows.push(mean)
  }
  const names = run.capabilities.map(({ name }) => name)
  const router = new PrototypeRouter(
    names,
    rows.map((row) => Float32Array.from(row)),
  )
  let right = 0
  let count = 0
  for (const name of names)
    for (const state of await states(name, reserved(captures.get(name)!))) {
      if (router.choose(state).capability === name) right++
      count++
    }
  return { prototypes: cpuTensor('F32', [rows.length, width], rows.flat()), accuracy: right / count }
}

/** A prompt is judged by its first tokens. */
const promptTokens = 8
