import { join } from 'node:path'
import { truncateAdapter } from '../adapters/truncate.ts'
import { RuleError } from '../core/errors.ts'
import { exists, readJson, sha256, sha256OfFile, writeJson } from '../host/files.ts'
import type { Capability } from '../train/capability.ts'
import type { Baseline } from './capture.ts'
import type { DistilResult } from './distil.ts'
import { type Measured, measure } from './measure.ts'
import { pairedDifference, type Retention, retention, type Verdict } from './retention.ts'
import type { RouterScores } from './router.ts'
import { type ControlName, type NiwtRun, paths, type StageRecord, type StudentPaths } from './run.ts'
import { datasetHash } from './scope.ts'
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
  readonly routers?: RouterScores
  /** By capability: what is kept when its adapter is cut to a share of its ranks. */
  readonly rankCurve?: Readonly<Record<string, readonly { readonly rank: number; readonly ratio: number }[]>>
  /** Runs of the same budget that lack a part of the method, with what the student has over each. */
  readonly controls?: Readonly<Partial<Record<ControlName, Readonly<Record<string, ControlScore>>>>>
  readonly capabilities: Readonly<
    Record<
      string,
      Retention & {
        readonly metric: string
        readonly required: number
        readonly bitsPerToken: { readonly teacher: number; readonly student: number }
        /** All metrics that the items allow, with their standard errors. */
        readonly scores?: { readonly teacher: Measured['scores']; readonly student: Measured['scores'] }
      }
    >
  >
}

/** What a control got on a capability. */
export interface ControlScore {
  readonly score: number
  /** Share of the teacher's score. */
  readonly ratio: number
  readonly bitsPerToken: number
  /** Score of the student less that of the control on the same items, with its 95 % interval. */
  readonly gain: number
  readonly lower: number
  readonly upper: number
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
  const measured = await measureStudent(run, 'gate', where)
  const clusters: Record<string, number> = {}
  const capabilities: Record<string, GateReport['capabilities'][string]> = {}
  for (const { capability: name, metric, retainFraction } of run.contracts) {
    const capability = run.capabilities.find((item) => item.name === name)!
    const student = measured[name]
    const teacher = bitsOf(baseline[name].correct)
    // Tokens of one passage depend on each other: the passage is the unit of chance.
    clusters[name] = capability.unit === 'token' ? teacher.length / capability.items().length : 1
    const kept = retention(teacher, bitsOf(student.correct), {
      ...{ required: retainFraction, clusterSize: clusters[name], chance: capability.chance },
    })
    capabilities[name] = {
      ...kept,
      metric,
      required: retainFraction,
      bitsPerToken: { teacher: baseline[name].bitsPerToken, student: student.bitsPerToken },
      scores: { teacher: baseline[name].scores, student: student.scores },
    }
  }
  const controls: Partial<Record<ControlName, Record<string, ControlScore>>> = {}
  for (const control of run.settings.controls ?? []) {
    const theirs = await measureStudent(run, `gate ${control}`, where.control(control))
    controls[control] = Object.fromEntries(
      run.contracts.map(({ capability: name }) => {
        const { score, correct, bitsPerToken } = theirs[name]
        const difference = pairedDifference(bitsOf(measured[name].correct), bitsOf(correct), clusters[name])
        return [name, { score, ratio: score / baseline[name].score, bitsPerToken, ...difference }]
      }),
    )
  }
  const rankCurve = await measureRanks(run, baseline, capabilities)
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
    routers: distilled.routers,
    ...(run.settings.controls && { controls }),
    ...(rankCurve && { rankCurve }),
    capabilities,
  }
  await writeJson(where.report, report)
  return report
}

/** Scores a student that stage 4 wrote on the held-out items of every capability. */
async function measureStudent(run: NiwtRun, task: string, of: StudentPaths): Promise<Record<string, Measured>> {
  const where = paths(run.folder, run.teacherName)
  using student = await Student.read(run.gpu, where, run.settings.student.storage, of)
  const measured: Record<string, Measured> = {}
  for (const { capability: name } of run.contracts) {
    const capability = run.capabilities.find((item) => item.name === name)!
    const adapter = student.adapters.get(name)!
    measured[name] = await once(run, of, `${task} ${name}`, capability, () =>
      measure(run, student.backbone, capability, `${task} ${name}`, adapter),
    )
  }
  return measured
}

/**
 * A measurement that is on disk as soon as it is there, so that a gate which was stopped goes on. It belongs to the student's
 * files and the items, and is taken again when one of them is another.
 */
async function once(
  run: NiwtRun,
  of: StudentPaths,
  task: string,
  capability: Capability,
  work: () => Promise<Measured>,
): Promise<Measured> {
  const path = paths(run.folder, run.teacherName).measured(task)
  const files = ['backbone', `adapters/${capability.name}`].map((name) => join(of.student, `${name}.safetensors`))
  const parts = [
    await Promise.all(files.map(sha256OfFile)),
    datasetHash(capability),
    run.gpu.name,
    run.settings.student,
  ]
  const key = sha256(JSON.stringify([...parts, capability.metric]))
  const before = exists(path) ? ((await readJson(path)) as { key: string; result: Measured }) : undefined
  if (before?.key === key) return before.result
  const result = await work()
  await writeJson(path, { key, result })
  return result
}

/** What adapters keep that are cut to the shares of their ranks that the settings name. */
async function measureRanks(
  run: NiwtRun,
  baseline: Baseline,
  whole: GateReport['capabilities'],
): Promise<GateReport['rankCurve']> {
  const { rankShares } = run.settings.evaluation ?? {}
  if (!rankShares || rankShares.length === 0) return undefined
  const where = paths(run.folder, run.teacherName)
  using student = await Student.read(run.gpu, where, run.settings.student.storage)
  const { config } = student.backbone
  const { adapters: ranks } = (await readArchitecture(where.architecture)).architecture
  const curve: Record<string, { rank: number; ratio: number }[]> = {}
  for (const { capability: name } of run.contracts) {
    const capability = run.capabilities.find((item) => item.name === name)!
    curve[name] = []
    for (const share of rankShares) {
      const { adapter, meanRank } = await truncateAdapter(run.gpu, student.adapters.get(name)!, config, share)
      using cut = adapter
      const task = `gate ${name} at ${Math.round(100 * share)} % of its ranks`
      const { score } = await once(run, where, task, capability, () =>
        measure(run, student.backbone, capability, task, cut),
      )
      curve[name].push({ rank: meanRank, ratio: score / baseline[name].score })
    }
    const own = Object.values(ranks[name].ranks)
    const rank = own.reduce((sum, value) => sum + value, 0) / own.length
    curve[name].push({ rank, ratio: whole[name].ratio })
  }
  return curve
}

function bitsOf(text: string): Uint8Array {
  return Uint8Array.from(text, Number)
}
