import { RuleError } from '../core/errors.ts'
import { exists, readJson, writeJson } from '../host/files.ts'
import { evaluate } from '../train/evaluate.ts'
import type { Baseline } from './capture.ts'
import type { DistilResult } from './distil.ts'
import { type Retention, retention, type Verdict } from './retention.ts'
import { type NiwtRun, paths, type StageRecord } from './run.ts'
import { Student } from './student.ts'
import { readArchitecture } from './synthesize.ts'

/** verify_report.json: what the gate measured and how the student was made. */
export interface GateReport {
  readonly verdict: Verdict
  readonly seed: number
  /** What the numbers were computed on. */
  readonly adapter: string
  readonly parameters: {
    readonly teacher: number
    readonly backbone: number
    readonly backboneRatio: number
    readonly adapters: Readonly<Record<string, { readonly parameters: number; readonly ratio: number }>>
  }
  /** Terms of L = L_output + α · L_activation + β · L_attention at the first and the last step, by capability. */
  readonly loss: {
    readonly alpha: number
    readonly beta: number
    readonly first: Readonly<Record<string, number>>
    readonly last: Readonly<Record<string, number>>
  }
  readonly recovered: readonly string[]
  readonly routerAccuracy: number
  readonly capabilities: Readonly<
    Record<
      string,
      Retention & {
        readonly metric: string
        readonly required: number
        readonly bitsPerToken: { readonly teacher: number; readonly student: number }
      }
    >
  >
}

/**
 * Stage 5: scores the student, as it will be packed, on every held-out item, and compares it with what the teacher got
 * on the same items before it left.
 * @throws RuleError when the teacher's files are still there.
 */
export async function gateStage(run: NiwtRun): Promise<GateReport> {
  const where = paths(run.folder, run.teacherName)
  if (exists(run.teacherFolder))
    throw new RuleError('the gate runs without the teacher', `${run.teacherFolder} is still there; delete it first`)
  const baseline = (await readJson(where.baseline)) as Baseline
  const { architecture } = await readArchitecture(where.architecture)
  const distilled = ((await readJson(where.stage('4-distil'))) as StageRecord).result as DistilResult
  using student = await Student.read(run.gpu, where, run.settings.student.storage)
  const capabilities: Record<string, GateReport['capabilities'][string]> = {}
  for (const { capability: name, metric, retainFraction } of run.contracts) {
    const capability = run.capabilities.find((item) => item.name === name)!
    const items = capability.items()
    const { correct, bitsPerToken } = await evaluate({
      gpu: run.gpu,
      forward: (step, ids) => student.backbone.forward(step, ids, { updates: student.adapters.get(name)! }),
      items,
      unit: capability.unit,
      task: `gate ${name}`,
      onProgress: run.onProgress,
      signal: run.signal,
    })
    const teacher = Uint8Array.from(baseline[name].correct, Number)
    // Characters of one passage depend on each other: the passage is the unit of chance.
    const clusterSize = capability.unit === 'token' ? teacher.length / items.length : 1
    const measured = retention(teacher, correct, { required: retainFraction, clusterSize, chance: capability.chance })
    capabilities[name] = {
      ...measured,
      metric,
      required: retainFraction,
      bitsPerToken: { teacher: baseline[name].bitsPerToken, student: bitsPerToken },
    }
  }
  const verdicts = Object.values(capabilities).map(({ verdict }) => verdict)
  const report: GateReport = {
    verdict: verdicts.includes('fail') ? 'fail' : verdicts.includes('inconclusive') ? 'inconclusive' : 'pass',
    seed: run.seed,
    adapter: run.gpu.name,
    parameters: {
      teacher: architecture.teacher.parameters,
      backbone: architecture.backboneParameters,
      backboneRatio: architecture.backboneRatio,
      adapters: Object.fromEntries(
        Object.entries(architecture.adapters).map(([name, { parameters, ratio }]) => [name, { parameters, ratio }]),
      ),
    },
    loss: {
      alpha: run.settings.distil.alpha,
      beta: run.settings.distil.beta,
      first: distilled.first,
      last: distilled.last,
    },
    recovered: distilled.recovered,
    routerAccuracy: distilled.routerAccuracy,
    capabilities,
  }
  await writeJson(where.report, report)
  return report
}
