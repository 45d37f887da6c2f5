import * as z from 'zod'
import { type CpuTensor, cpuTensor, toFloat32 } from './tensor.ts'

/** A low-rank update of one linear layer: W + scale · B · A. */
export interface LoraModule {
  /** Path in the base model: model.layers.0.self_attn.q_proj. */
  readonly module: string
  /** (rank, in). */
  readonly a: CpuTensor
  /** (out, rank). */
  readonly b: CpuTensor
  readonly rank: number
  readonly scale: number
}

const prefix = 'base_model.model.'
const patterns = z.record(z.string(), z.number().positive()).nullish()
const off = z.union([z.literal(false), z.null()]).optional()
const schema = z.object({
  peft_type: z.literal('LORA'),
  r: z.number().int().positive(),
  lora_alpha: z.number(),
  use_rslora: z.boolean().default(false),
  rank_pattern: patterns,
  alpha_pattern: patterns,
  bias: z.literal('none').default('none'),
  use_dora: off,
  use_qalora: off,
  lora_bias: off,
  fan_in_fan_out: off,
  modules_to_save: z.union([z.null(), z.array(z.never())]).optional(),
  trainable_token_indices: z.null().optional(),
  alora_invocation_tokens: z.null().optional(),
})

/**
 * Reads a PEFT adapter: adapter_config.json and the tensors of adapter_model.safetensors.
 * @param config the parsed file.
 * @returns the modules, sorted by path; each scale is alpha / r or, with rsLoRA, alpha / √r, patterns applied.
 * @throws SyntaxError naming what is missing, does not fit or is not supported.
 * @see peft, tuners/lora/model.py `_create_and_replace`, utils/other.py `get_pattern_key`.
 */
export function readPeft(config: unknown, tensors: ReadonlyMap<string, CpuTensor>): LoraModule[] {
  const fault = (reason: string) => new SyntaxError(`Cannot read the PEFT adapter: ${reason}`)
  const result = schema.safeParse(config)
  if (!result.success) {
    const [issue] = result.error.issues
    throw fault(`adapter_config.json, ${issue.path.join('.')}: ${issue.message}`)
  }
  const c = result.data
  const rankOf = compilePatterns(c.rank_pattern ?? {}, c.r, fault)
  const alphaOf = compilePatterns(c.alpha_pattern ?? {}, c.lora_alpha, fault)
  if (tensors.size === 0) throw fault('it holds no tensors')
  const modules: LoraModule[] = []
  for (const [name, a] of [...tensors].sort(([x], [y]) => (x < y ? -1 : 1))) {
    const match = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/.exec(name)
    if (!match) throw fault(`the tensor ${name} is not lora_A or lora_B of a module`)
    const [, module, side] = match
    const b = tensors.get(`${prefix}${module}.lora_B.weight`)
    if (!b || !tensors.has(`${prefix}${module}.lora_A.weight`)) throw fault(`${name} has no counterpart`)
    if (side === 'B') continue
    if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[0] !== b.shape[1])
      throw fault(
        `${module} has A [${a.shape.join(',')}] and B [${b.shape.join(',')}]; they must be (r, in) and (out, r)`,
      )
    const [rank] = a.shape
    if (rank !== rankOf(module)) throw fault(`${module} has rank ${rank}, adapter_config.json says ${rankOf(module)}`)
    modules.push({ module, a, b, rank, scale: alphaOf(module) / (c.use_rslora ? Math.sqrt(rank) : rank) })
  }
  return modules
}

/** A value by module path: that of the first pattern that matches the end of the path, or `otherwise`. */
function compilePatterns(
  patterns: Readonly<Record<string, number>>,
  otherwise: number,
  fault: (reason: string) => SyntaxError,
): (module: string) => number {
  const compiled = Object.entries(patterns).map(([pattern, value]) => {
    // A pattern comes from a file: no quantified groups and few quantifiers, so that matching takes no time.
    const risky = pattern.length > 512 || /\)[*+{?]/.test(pattern) || (pattern.match(/[*+{]/g)?.length ?? 0) > 4
    if (risky) throw fault(`the pattern ${JSON.stringify(pattern)} is too complicated`)
    try {
      return [new RegExp(`^(?:.*\\.)?(?:${pattern})$`), value] as const
    } catch {
      throw fault(`the pattern ${JSON.stringify(pattern)} is not a regular expression`)
    }
  })
  return (module) => compiled.find(([pattern]) => pattern.test(module))?.[1] ?? otherwise
}

/** How {@link writePeft} writes ranks. */
export interface PeftOptions {
  /**
   * 'uniform': every module padded with zeros to one rank of 8, 16, 32, …, which every program reads alike. 'native':
   * each module its own rank, with patterns, which PEFT reads.
   */
  readonly ranks: 'uniform' | 'native'
  readonly dtype?: 'F32' | 'F16' | 'BF16'
  /** Name of the base model, for people. */
  readonly baseModel?: string
  /** Layers of the base; where every one of them is adapted alike, modules are named by kind. */
  readonly layers?: number
}

/**
 * A PEFT adapter whose scale is 1 in every program: what scale there is goes into B.
 * @returns the tensors of adapter_model.safetensors, to be written with the metadata `{ format: 'pt' }`, and the text
 * of adapter_config.json.
 * @throws RangeError when there are no modules.
 */
export function writePeft(
  modules: readonly LoraModule[],
  { ranks, dtype = 'F32', baseModel, layers }: PeftOptions,
): { tensors: Map<string, CpuTensor>; config: string } {
  if (modules.length === 0) throw new RangeError('Cannot write a PEFT adapter: it has no modules')
  const largest = Math.max(...modules.map(({ rank }) => rank))
  const uniform = 2 ** Math.max(3, Math.ceil(Math.log2(largest)))
  const r = ranks === 'uniform' ? uniform : largest
  const tensors = new Map<string, CpuTensor>()
  const pattern: Record<string, number> = {}
  for (const module of modules) {
    const rank = ranks === 'uniform' ? uniform : module.rank
    const { a, b } = foldScale(module, rank)
    tensors.set(`${prefix}${module.module}.lora_A.weight`, cpuTensor(dtype, [rank, module.a.shape[1]], a))
    tensors.set(`${prefix}${module.module}.lora_B.weight`, cpuTensor(dtype, [module.b.shape[0], rank], b))
    if (rank !== r) pattern[module.module.replaceAll('.', '\\.')] = rank
  }
  const sorted = Object.fromEntries(Object.entries(pattern).sort(([x], [y]) => (x < y ? -1 : 1)))
  const config = {
    alpha_pattern: sorted,
    auto_mapping: null,
    base_model_name_or_path: baseModel ?? null,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    layer_replication: null,
    layers_pattern: null,
    layers_to_transform: null,
    lora_alpha: r,
    lora_bias: false,
    lora_dropout: 0,
    modules_to_save: null,
    peft_type: 'LORA',
    r,
    rank_pattern: sorted,
    revision: null,
    target_modules: targetModules(modules, layers),
    task_type: 'CAUSAL_LM',
    use_dora: false,
    use_rslora: false,
  }
  return { tensors, config: pythonJson(config) }
}

/** A and B with the scale in B, padded with zeros to `rank`. */
export function foldScale(
  { a, b, rank: own, scale }: LoraModule,
  rank: number = own,
): { a: Float32Array<ArrayBuffer>; b: Float32Array<ArrayBuffer> } {
  const [, columns] = a.shape
  const [rows] = b.shape
  const padded = new Float32Array(rank * columns)
  padded.set(toFloat32(a))
  const source = toFloat32(b)
  const scaled = new Float32Array(rows * rank)
  for (let row = 0; row < rows; row++)
    for (let i = 0; i < own; i++) scaled[row * rank + i] = source[row * own + i] * scale
  return { a: padded, b: scaled }
}

/** Kinds of module (q_proj) where each kind is adapted in every layer, else full paths, which match nothing more. */
function targetModules(modules: readonly LoraModule[], layers?: number): string[] {
  const kinds = new Map<string, Set<string>>()
  for (const { module } of modules) {
    const [, layer, kind] = /^model\.layers\.(\d+)\.(?:\w+\.)?(\w+)$/.exec(module) ?? []
    if (kind === undefined) return modules.map(({ module }) => module).sort()
    kinds.set(kind, (kinds.get(kind) ?? new Set()).add(layer))
  }
  const everywhere = layers !== undefined && [...kinds.values()].every((set) => set.size === layers)
  return everywhere ? [...kinds.keys()].sort() : modules.map(({ module }) => module).sort()
}

/** JSON as PEFT writes it: keys sorted, indent 2, ASCII, a dropout of 0 as a float. */
function pythonJson(value: object): string {
  return JSON.stringify(value, null, 2)
    .replace('"lora_dropout": 0,', '"lora_dropout": 0.0,')
    .replace(/[\u007f-\uffff]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
