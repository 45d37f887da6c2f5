import { exists, readBytes, readJson } from '../host/files.ts'
import { barChart } from '../report/bar-chart.ts'
import { intervalChart } from '../report/interval-chart.ts'
import { type LineSeries, lineChart } from '../report/line-chart.ts'
import { card, dataTable, reportPage, type Section } from '../report/page.ts'
import { anchorsSay, points, verdictOf } from './control-words.ts'
import type { GateReport } from './gate.ts'
import { controlNames, paths, type StageRecord } from './run.ts'
import { readArchitecture, type StudentArchitecture } from './synthesize.ts'

/** A line of distil_log.jsonl. */
interface LogLine {
  readonly step: number
  readonly lr: number
  readonly loss: number
  readonly gradientNorm: number
  readonly terms: Readonly<Record<string, number>>
  readonly alpha: number
  readonly beta: number
  readonly tokens: number
}

/** A line of distil_times.jsonl. */
interface TimeLine {
  readonly step: number
  readonly seconds: number
  readonly memory: number
  readonly planned: number
}

const percent = (value: number) => `${(100 * value).toFixed(1)} %`

/**
 * The report of a finished run as one HTML file: the gate, the controls, every term of the loss, ranks, routers.
 * @param folder of the run.
 * @param teacher name of its teacher.
 */
export async function runReport(folder: string, teacher: string): Promise<string> {
  const where = paths(folder, teacher)
  const report = (await readJson(where.report)) as GateReport
  const { architecture } = await readArchitecture(where.architecture)
  const logs = new Map<string, LogLine[]>([['student', await readLines<LogLine>(where.log)]])
  for (const control of controlNames) {
    const lines = await readLines<LogLine>(where.control(control).log)
    if (lines.length > 0 && report.controls?.[control]) logs.set(control, lines)
  }
  const capabilities = Object.entries(report.capabilities)
  const { parameters } = report
  return reportPage({
    title: `What a student keeps of ${teacher}`,
    subtitle:
      `Measured on ${report.adapter}, seed ${report.seed}, without the teacher's files. ` +
      'A capability passes when the one-sided 95 % lower bound of what is kept reaches what was asked.',
    figures: [
      { name: 'verdict', value: report.verdict },
      { name: 'of the teacher’s parameters', value: percent(parameters.backboneRatio) },
      ...capabilities.map(([name, { ratio }]) => ({ name: `kept of ${name}`, value: percent(ratio) })),
    ],
    sections: [
      gateSection(report),
      ...(report.controls ? [controlSection(report)] : []),
      lossSection(logs),
      rankSection(report, architecture),
      ...(report.routers ? [routerSection(report)] : []),
      await timeSection(where),
    ],
  })
}

async function readLines<T>(path: string): Promise<T[]> {
  if (!exists(path)) return []
  const text = new TextDecoder().decode(await readBytes(path))
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as T)
}

function gateSection(report: GateReport): Section {
  const rows = Object.entries(report.capabilities).map(([name, c]) => [
    ...[name, c.metric, percent(c.teacher), percent(c.student), percent(c.ratio)],
    ...[`${percent(c.lower)} to ${percent(c.upper)}`, percent(c.corrected), percent(c.required)],
    ...[String(c.n), percent(c.discordance), c.verdict],
  ])
  const details = Object.entries(report.capabilities).flatMap(([name, { scores, bitsPerToken }]) => [
    ...Object.entries(scores?.student ?? {}).map(([metric, student]) => {
      const teacher = scores!.teacher[metric]
      const shown = ({ score, stderr }: { score: number; stderr: number }) =>
        `${score.toFixed(4)} ± ${stderr.toFixed(4)}`
      return [name, metric, teacher ? shown(teacher) : '', shown(student)]
    }),
    [name, 'bits a token', bitsPerToken.teacher.toFixed(3), bitsPerToken.student.toFixed(3)],
  ])
  const header = ['capability', 'metric', 'teacher', 'student', 'kept', '90 % interval', 'above chance', 'asked']
  return {
    title: 'The gate',
    text: 'Teacher and student on the same held-out items, paired. Inconclusive means that the interval holds what was asked.',
    body: [
      dataTable([...header, 'n', 'they differ on', 'verdict'], rows),
      card('Every metric, with its standard error', dataTable(['capability', 'metric', 'teacher', 'student'], details)),
      card(
        'Scores',
        barChart({
          ...{ title: 'Scores of teacher and student', description: 'By capability' },
          categories: Object.keys(report.capabilities),
          series: [
            { name: 'teacher', values: Object.values(report.capabilities).map(({ teacher }) => teacher) },
            { name: 'student', values: Object.values(report.capabilities).map(({ student }) => student) },
          ],
          x: { label: 'capability' },
          y: { label: 'score', to: 1 },
        }),
      ),
    ],
  }
}

function controlSection(report: GateReport): Section {
  const names = Object.keys(report.capabilities)
  const controls = Object.entries(report.controls ?? {})
  const rows = controls.flatMap(([control, scores]) =>
    names.map((name) => {
      const { score, ratio, bitsPerToken, gain, lower, upper } = scores![name]
      return [
        ...[control, name, percent(score), percent(ratio), bitsPerToken.toFixed(3), points(gain)],
        ...[`${points(lower)} to ${points(upper)}`, verdictOf({ lower, upper })],
      ]
    }),
  )
  const header = ['control', 'capability', 'score', 'kept', 'bits a token', 'student ahead by, points', '95 % interval']
  // What inherits nothing is so far behind that beside it nothing else could be seen.
  const near = controls.filter(([control]) => control !== 'random-init' || controls.length === 1)
  const says = anchorsSay(report)
  return {
    title: 'Controls',
    text:
      `${says === undefined ? '' : `${says} `}Controls are students of the same budget that each lack one part of the method; ` +
      'items are paired. An interval that holds zero proves nothing.',
    body: [
      dataTable([...header, 'what it says'], rows),
      ...names.map((name) =>
        card(
          `${name}: student less control`,
          intervalChart({
            title: `What the student is ahead of its controls by on ${name}`,
            description: `Percentage points with their 95 % intervals${near.length < controls.length ? '; random-init is in the table' : ''}`,
            categories: near.map(([control]) => control),
            intervals: near.map(([, scores]) => {
              const { gain, lower, upper } = scores![name]
              return { value: 100 * gain, lower: 100 * lower, upper: 100 * upper }
            }),
            x: { label: '' },
            y: { label: 'points' },
          }),
        ),
      ),
    ],
  }
}

function lossSection(logs: ReadonlyMap<string, readonly LogLine[]>): Section {
  const student = logs.get('student')!
  const terms = [...new Set(student.flatMap((line) => Object.keys(line.terms)))]
  const kinds = [...new Set(terms.map((term) => term.split(' ')[0]))]
  const unit: Readonly<Record<string, string>> = {
    output: 'nats a token',
    activation: 'log(1 + squared distance), whitened',
    attention: 'nats a token',
  }
  const charts = kinds.map((kind) =>
    card(
      `${kind}, by capability`,
      lineChart({
        ...{ title: `The term ${kind} of the loss`, description: 'By step and capability, without its weight' },
        series: terms
          .filter((term) => term.startsWith(`${kind} `))
          .map((term) => ({
            name: term.slice(kind.length + 1),
            points: student.map((line) => [line.step, line.terms[term]] as const),
          })),
        x: { label: 'step' },
        y: { label: unit[kind] ?? kind },
      }),
    ),
  )
  const outputs: LineSeries[] = [...logs].map(([name, lines]) => ({
    name,
    points: lines.map(({ step, terms: all }) => [step, outputOf(all)] as const),
  }))
  return {
    title: 'The loss',
    text:
      'L = output + α · activation + β · attention. The anchors are divided by their first values and their weights fall to ' +
      'zero, so that the teacher’s answers decide in the end.',
    body: [
      ...charts,
      card(
        'output of the student and its controls',
        lineChart({
          ...{
            title: 'Output term of every student',
            description: 'Sum over capabilities; cross entropy has another floor',
          },
          series: outputs,
          x: { label: 'step' },
          y: { label: 'nats a token, all capabilities' },
        }),
      ),
      card(
        'weights of the anchors',
        lineChart({
          ...{ title: 'Weights of the anchors', description: 'By step' },
          series: [
            { name: 'α', points: student.map(({ step, alpha }) => [step, alpha] as const) },
            { name: 'β', points: student.map(({ step, beta }) => [step, beta] as const) },
          ],
          x: { label: 'step' },
          y: { label: 'weight' },
        }),
      ),
    ],
  }
}

function outputOf(terms: Readonly<Record<string, number>>): number {
  return Object.entries(terms).reduce((sum, [name, value]) => (name.startsWith('output ') ? sum + value : sum), 0)
}

function rankSection(report: GateReport, architecture: StudentArchitecture): Section {
  const layers = architecture.anchors.kept.length
  const byLayer = (name: string) => {
    const sums = new Array<number>(layers).fill(0)
    const counts = new Array<number>(layers).fill(0)
    for (const [place, rank] of Object.entries(architecture.adapters[name].ranks)) {
      const layer = Number(place.slice(0, place.indexOf('.')))
      sums[layer] += rank
      counts[layer]++
    }
    return sums.map((sum, layer) => [layer, sum / Math.max(1, counts[layer])] as const)
  }
  const names = Object.keys(architecture.adapters)
  const kept = architecture.anchors.kept.join(', ')
  const curves = Object.entries(report.rankCurve ?? {}).map(([name, curve]) => ({
    name,
    points: curve.map(({ rank, ratio }) => [rank, ratio] as const),
  }))
  const ffn = architecture.ffn
    ? ` Of ${architecture.ffn.of} hidden channels ${architecture.ffn.width} are kept, which carry ${percent(mean(architecture.ffn.kept))} of the FFNs’ output energy.`
    : ''
  return {
    title: 'The student and its ranks',
    text: `It keeps the teacher’s layers ${kept}.${ffn}`,
    body: [
      ...(curves.length > 0
        ? [
            card(
              'what is kept at smaller ranks',
              lineChart({
                ...{
                  title: 'Retention against rank',
                  description: 'Each adapter cut to a share of its rank by its singular values',
                },
                series: curves,
                x: { label: 'mean rank' },
                y: { label: 'kept of the teacher' },
              }),
            ),
          ]
        : []),
      card(
        'rank by layer',
        lineChart({
          ...{ title: 'Mean rank of the linear layers', description: 'By layer of the student' },
          series: names.map((name) => ({ name, points: byLayer(name) })),
          x: { label: 'layer' },
          y: { label: 'mean rank' },
        }),
      ),
      dataTable(
        ['adapter', 'parameters', 'of the teacher’s'],
        names.map((name) => {
          const { parameters, ratio } = architecture.adapters[name]
          return [name, String(parameters), percent(ratio)]
        }),
      ),
    ],
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

function routerSection({ routers }: GateReport): Section {
  const { n, ...all } = routers!
  const rows = Object.entries(all).map(([name, { accuracy, loss }]) => [
    ...[name === 'trained' ? 'trained (packed)' : name, percent(accuracy), loss.toFixed(4)],
  ])
  return {
    title: 'Routers',
    text: `On ${n} captured rows that training did not see. The oracle knows the capability; random does not look.`,
    body: [dataTable(['router', 'right adapter', 'loss under it, nats a token'], rows)],
  }
}

/** `bytes per token` for `bytesPerToken`. */
function wordsOf(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)
}

async function timeSection(where: ReturnType<typeof paths>): Promise<Section> {
  const rows: string[][] = []
  for (const stage of ['2-profile', '2b-capture', '3-synthesize', '4-distil'])
    if (exists(where.stage(stage))) {
      const { seconds, result } = (await readJson(where.stage(stage))) as StageRecord
      const facts = Object.entries((result ?? {}) as Record<string, unknown>).filter(
        ([, value]) => typeof value === 'number',
      )
      rows.push([
        stage,
        seconds.toFixed(1),
        facts.map(([name, value]) => `${wordsOf(name)} ${Number((value as number).toPrecision(5))}`).join(', '),
      ])
    }
  const lines = await readLines<LogLine>(where.log)
  const times = await readLines<TimeLine>(where.times)
  const tokens = lines.reduce((sum, line) => sum + line.tokens, 0)
  const seconds = times.reduce((sum, line) => sum + line.seconds, 0)
  const memory = Math.max(0, ...times.map((line) => line.memory))
  const planned = Math.max(0, ...times.map((line) => line.planned))
  const mebibytes = (bytes: number) => Math.ceil(bytes / 2 ** 20)
  return {
    title: 'What it took',
    text: `${lines.length} steps, ${tokens} tokens, ${(tokens / Math.max(seconds, 1e-9)).toFixed(1)} tokens a second in training, ${mebibytes(memory)} MiB on the GPU at the peak, ${mebibytes(planned)} MiB planned.`,
    body: [dataTable(['stage', 'seconds', 'facts'], rows)],
  }
}
