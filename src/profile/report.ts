import { join } from 'node:path'
import { parseSafetensors } from '../formats/safetensors.ts'
import { type CpuTensor, toFloat32 } from '../formats/tensor.ts'
import { exists, listNames, readBytes, readJson, writeFileAtomic } from '../host/files.ts'
import { barChart } from '../report/bar-chart.ts'
import { heatMap } from '../report/heat-map.ts'
import { lineChart } from '../report/line-chart.ts'
import { card, dataTable, reportPage, type Section } from '../report/page.ts'
import { shortNumber } from '../report/scale.ts'
import { type Profile, parseProfile } from './schema.ts'
import { siteKinds } from './sites.ts'

/** A profile with its bases and spectra. */
interface Shown {
  readonly profile: Profile
  readonly tensors: ReadonlyMap<string, CpuTensor>
}

const comparedComponents = 16
const shownOutputs = 4
const spectrumPoints = 120

/**
 * Writes report.html of all capabilities of a teacher: one file that needs no network.
 * @param folder `…/profiles/<teacher>`.
 * @returns its path.
 * @throws SyntaxError when a profile is damaged or there is none.
 */
export async function writeReport(folder: string): Promise<string> {
  const shown: Shown[] = []
  for (const name of (await listNames(folder)).sort()) {
    const path = join(folder, name, 'profile.json')
    if (!exists(path)) continue
    const { tensors } = parseSafetensors(await readBytes(join(folder, name, 'pca.safetensors')))
    shown.push({ profile: parseProfile(path, await readJson(path)), tensors })
  }
  if (shown.length === 0) throw new SyntaxError(`Cannot report on ${folder}: there is no finished profile in it`)
  const path = join(folder, 'report.html')
  await writeFileAtomic(path, profileReport(shown))
  return path
}

/** The report of a teacher's profiles as HTML. */
export function profileReport(shown: readonly Shown[]): string {
  const profiles = shown.map(({ profile }) => profile)
  const [{ teacher }] = profiles
  const names = profiles.map(({ capability }) => capability)
  const correlations = profiles.map(({ scoreCorrelation }) => scoreCorrelation?.toFixed(2) ?? '–').join(', ')
  return reportPage({
    title: `${teacher.name}: where ${listed(names)} live${names.length === 1 ? 's' : ''}`,
    subtitle: `${teacher.layers} layers of width ${teacher.width} with ${teacher.heads} heads, held as ${teacher.storage}.`,
    figures: [
      { name: 'samples a capability', value: profiles.map(({ samples }) => samples).join(', ') },
      { name: 'tokens that count', value: profiles.map(({ data }) => shortNumber(data.tokens)).join(', ') },
      {
        name: 'key layers',
        value: profiles.map(({ keyLayers }) => keyLayers.slice(0, 4).join(' ') || '–').join(' · '),
      },
      { name: 'score ~ ablation (Spearman)', value: correlations },
    ],
    sections: [
      layerSection(profiles),
      ...(shown.length > 1 ? [differenceSection(shown)] : []),
      rankSection(profiles),
      estimatorSection(profiles),
      spectrumSection(shown),
      headSection(profiles),
      factSection(profiles),
    ],
  })
}

function listed(names: readonly string[]): string {
  return names.length < 3 ? names.join(' and ') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`
}

function layersOf({ teacher }: Profile): string[] {
  return Array.from({ length: teacher.layers }, (_, layer) => String(layer))
}

function layerSection(profiles: readonly Profile[]): Section {
  const categories = layersOf(profiles[0])
  const chart = (title: string, label: string, values: (profile: Profile) => readonly (number | null)[]) =>
    card(
      title,
      barChart({
        ...{ title, description: `${label}, by layer and capability`, categories },
        series: profiles.map((profile) => ({ name: profile.capability, values: values(profile) })),
        ...{ x: { label: 'layer' }, y: { label } },
      }),
    )
  return {
    title: 'Which layers matter',
    text: 'Left, what leaving a layer out costs on held-out items, where it was measured. Right, the cheap score: how far a layer turns the residual stream.',
    body: [
      chart('True ablation', 'KL, nats a token', ({ ablation }) => ablation),
      chart('1 − E cos(in, out)', 'score', ({ layerScores }) => layerScores),
    ],
  }
}

const kindsWithBasis = ['attention.input', 'attention.mixed', 'ffn.input', 'ffn.hidden', 'output'] as const

/** 1 − |A Bᵀ|² / k of two bases: 0 where the first k directions span the same, 1 where they share none. */
function apart(a: CpuTensor, b: CpuTensor): number | null {
  const d = a.shape[1]
  const k = Math.min(comparedComponents, a.shape[0], b.shape[0])
  if (k === 0) return null
  const [x, y] = [toFloat32(a), toFloat32(b)]
  let sum = 0
  for (let i = 0; i < k; i++)
    for (let j = 0; j < k; j++) {
      let dot = 0
      for (let c = 0; c < d; c++) dot += x[i * d + c] * y[j * d + c]
      sum += dot * dot
    }
  return Math.max(0, 1 - sum / k)
}

function differenceSection(shown: readonly Shown[]): Section {
  const rows = layersOf(shown[0].profile)
  const pairs = shown.flatMap((a, i) => shown.slice(i + 1).map((b) => [a, b] as const))
  return {
    title: 'Where capabilities differ',
    text: `Left, how much of the first ${comparedComponents} directions of an activation two capabilities do not share. Right, heads that matter to one and not to the other.`,
    body: pairs.flatMap(([a, b]) => {
      const [p, q] = [a.profile, b.profile]
      const title = `${p.capability} and ${q.capability}`
      const directions = rows.map((layer) =>
        kindsWithBasis.map((kind) =>
          apart(a.tensors.get(`${layer}.${kind}.basis`)!, b.tensors.get(`${layer}.${kind}.basis`)!),
        ),
      )
      const heads = p.headImportance.map((layer, l) => layer.map((value, h) => value - q.headImportance[l][h]))
      const common = { rows, rowName: 'layer' }
      return [
        card(
          `${title}: directions not shared`,
          heatMap({
            ...{ ...common, title: `${title}: directions not shared`, values: directions, from: 0, to: 1 },
            ...{ description: 'Share of the first directions that differ, by layer and activation' },
            ...{ columns: [...kindsWithBasis], columnName: 'activation', unit: 'not shared' },
          }),
        ),
        card(
          `Heads: ${p.capability} − ${q.capability}`,
          heatMap({
            ...{ ...common, title: `Heads: ${p.capability} − ${q.capability}`, values: heads, colours: 'diverging' },
            ...{ description: 'Difference of head importance, by layer and head' },
            ...{ columns: p.headImportance[0].map((_, h) => String(h)), columnName: 'head', unit: 'importance' },
          }),
        ),
      ]
    }),
  }
}

function rankSection(profiles: readonly Profile[]): Section {
  return {
    title: 'Rank by layer and module',
    text: 'The default estimate: components that noise of the same channels would not show (parallel analysis on correlations; massive channels do not decide). It cannot exceed the tokens taken.',
    body: profiles.map((profile) => {
      const title = profile.capability
      return card(
        title,
        heatMap({
          ...{ title: `Ranks of ${title}`, description: 'Rank by layer and activation', rows: layersOf(profile) },
          ...{ rowName: 'layer', columns: [...siteKinds], columnName: 'activation', unit: 'rank', from: 0 },
          values: layersOf(profile).map((layer) =>
            siteKinds.map((kind) => profile.ranks[`${layer}.${kind}`]?.rank ?? null),
          ),
          width: 600,
        }),
      )
    }),
  }
}

const estimators = [
  ...(['rank', 'gavishDonoho', 'marchenkoPastur', 'explained95', 'participationRatio', 'effectiveRank'] as const),
]
const estimatorNames: Readonly<Record<(typeof estimators)[number], string>> = {
  rank: 'parallel analysis',
  gavishDonoho: 'Gavish-Donoho',
  marchenkoPastur: 'Marchenko-Pastur',
  explained95: '95 % explained',
  participationRatio: 'participation',
  effectiveRank: 'effective',
}

function estimatorSection(profiles: readonly Profile[]): Section {
  return {
    title: 'The estimators beside each other',
    text: 'Of what flows inside each layer’s FFN, where models keep the most directions.',
    body: profiles.map((profile) =>
      card(
        profile.capability,
        lineChart({
          ...{ title: `Estimators of ${profile.capability}`, description: 'Rank estimates of ffn.hidden by layer' },
          series: estimators.map((name) => ({
            name: estimatorNames[name],
            points: layersOf(profile).map(
              (layer) => [Number(layer), profile.ranks[`${layer}.ffn.hidden`][name]] as const,
            ),
          })),
          x: { label: 'layer', from: 0, to: profile.teacher.layers - 1 },
          ...{ y: { label: 'components', from: 0 }, dots: false },
        }),
      ),
    ),
  }
}

function spectrumSection(shown: readonly Shown[]): Section {
  const { layers } = shown[0].profile.teacher
  const [key] = shown[0].profile.keyLayers
  const middle = Math.floor(layers / 2)
  const places = [
    ...new Set([`${middle}.attention.input`, `${middle}.ffn.hidden`, `${key ?? 0}.output`, `${layers - 1}.output`]),
  ]
  return {
    title: 'Spectra',
    text: 'Variance along each component as a share of all, both axes logarithmic. The ranks are where a spectrum leaves the noise behind.',
    body: places.map((place) =>
      card(
        place,
        lineChart({
          ...{ title: `Spectrum of ${place}`, description: 'Variance of each component, largest first, by capability' },
          series: shown.map(({ profile, tensors }) => ({
            name: `${profile.capability} (rank ${profile.ranks[place].rank})`,
            points: spectrum(toFloat32(tensors.get(`${place}.eigenvalues`)!)),
          })),
          x: { label: 'component', scale: 'log' },
          ...{ y: { label: 'share of variance', scale: 'log' }, dots: false },
        }),
      ),
    ),
  }
}

/** Points of a spectrum, spaced evenly on a logarithmic axis; what is zero to f32 is left out. */
function spectrum(eigenvalues: Float32Array): (readonly [number, number])[] {
  const total = eigenvalues.reduce((sum, value) => sum + value, 0)
  const places = new Set(
    Array.from({ length: spectrumPoints }, (_, i) => Math.round(eigenvalues.length ** (i / (spectrumPoints - 1)))),
  )
  return [...places]
    .map((component) => [component, eigenvalues[component - 1] / total] as const)
    .filter(([, share]) => share > 1e-9)
}

function headSection(profiles: readonly Profile[]): Section {
  return {
    title: 'Heads',
    text: 'E|∂L/∂ξ| of a gate on each head, of length 1 in every layer.',
    body: profiles.map((profile) =>
      card(
        profile.capability,
        heatMap({
          ...{ title: `Heads of ${profile.capability}`, description: 'Importance of each head, by layer' },
          ...{ rows: layersOf(profile), rowName: 'layer', columnName: 'head', unit: 'importance', from: 0, to: 1 },
          ...{ columns: profile.headImportance[0].map((_, h) => String(h)), values: profile.headImportance },
        }),
      ),
    ),
  }
}

function factSection(profiles: readonly Profile[]): Section {
  const rows = profiles.map((profile) => {
    const { capability, description, samples, data, heldOutTokens, ranks, sites, outliers } = profile
    const massive = Object.values(ranks).filter((report) => report.massive.length > 0).length
    const sketched = Object.values(sites).filter(({ method }) => method !== 'covariance').length
    const share = outliers.reduce((most, layer) => Math.max(most, layer.share), 0)
    return [
      ...[capability, description, String(samples), String(data.tokens), String(data.stride), String(heldOutTokens)],
      ...[`${massive} of ${Object.keys(ranks).length}`, String(sketched), `${(100 * share).toFixed(1)} %`],
    ]
  })
  const header = [
    ...['capability', 'data', 'samples', 'tokens', 'taken: one of', 'held-out tokens'],
    ...['activations with massive channels', 'sketched', 'outlier tokens, at most'],
  ]
  const outputs = profiles.flatMap(({ capability, rawOutputs }) =>
    rawOutputs.slice(0, shownOutputs).map(({ input, predicted }) => [capability, input, predicted]),
  )
  return {
    title: 'What was measured on, and what the teacher says',
    text: 'The first token of a sample and padding are left out of all statistics. Predictions are the likeliest token after each token; fifty of them are in profile.json to verify a later teacher against.',
    body: [dataTable(header, rows), dataTable(['capability', 'input', 'predicted'], outputs)],
  }
}
