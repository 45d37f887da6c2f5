import { type DecoderConfig, type LinearName, linearShapes } from './model-config.ts'
import type { Family } from './model-family.ts'
import { foldScale, type LoraModule } from './peft.ts'
import { cpuTensor, toFloat32 } from './tensor.ts'

// Phi-3 has one layer where others have several: q, k and v in `qkv_proj`, gate and up in `gate_up_proj`, their rows below
// each other. Its PEFT files name those; a decoder here has the parts.

const fused: Readonly<Record<string, readonly LinearName[]>> = {
  'self_attn.qkv_proj': ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'],
  'mlp.gate_up_proj': ['mlp.gate_proj', 'mlp.up_proj'],
}

const fuses = (config: DecoderConfig & { readonly family?: Family }) => config.family === 'phi3'

/** `model.layers.3.self_attn.q_proj` as its layer's path and its name. */
function placeOf(module: string): [string, string] | undefined {
  const match = /^(model\.layers\.\d+)\.(.+)$/.exec(module)
  return match ? [match[1], match[2]] : undefined
}

/**
 * The modules as a family's own files name them: the updates of fused parts become one, whose A holds theirs below each
 * other and whose B has theirs along its diagonal, so that it computes the same.
 */
export function fuseModules(modules: readonly LoraModule[], config: DecoderConfig): LoraModule[] {
  if (!fuses(config)) return [...modules]
  const groups = new Map<string, LoraModule[]>()
  const result: LoraModule[] = []
  for (const module of modules) {
    const [layer, name] = placeOf(module.module) ?? []
    const whole = Object.keys(fused).find((key) => fused[key].includes(name as LinearName))
    if (whole === undefined) result.push(module)
    else groups.set(`${layer}.${whole}`, [...(groups.get(`${layer}.${whole}`) ?? []), module])
  }
  for (const [path, parts] of groups) {
    const [layer, whole] = placeOf(path)!
    const shapes = fused[whole].map((name) => linearShapes(config)[name])
    const columns = shapes[0][1]
    const rows = shapes.reduce((sum, [n]) => sum + n, 0)
    const rank = parts.reduce((sum, part) => sum + part.rank, 0)
    const a = new Float32Array(rank * columns)
    const b = new Float32Array(rows * rank)
    let [row, at] = [0, 0]
    for (const [i, name] of fused[whole].entries()) {
      const [n] = shapes[i]
      const part = parts.find(({ module }) => module === `${layer}.${name}`)
      if (part) {
        const own = foldScale(part)
        a.set(own.a, at * columns)
        for (let r = 0; r < n; r++) b.set(own.b.subarray(r * part.rank, (r + 1) * part.rank), (row + r) * rank + at)
        at += part.rank
      }
      row += n
    }
    result.push({
      ...{ module: path, rank, scale: 1 },
      ...{ a: cpuTensor('F32', [rank, columns], a), b: cpuTensor('F32', [rows, rank], b) },
    })
  }
  return result
}

/** The modules as a decoder has them: each part of a fused one has its A, and its own rows of B. */
export function splitModules(modules: readonly LoraModule[], config: DecoderConfig): LoraModule[] {
  return modules.flatMap((module) => {
    const [layer, name] = placeOf(module.module) ?? []
    const parts = name === undefined || !fuses(config) ? undefined : fused[name]
    if (!parts) return [module]
    const { rank, a, scale } = module
    const b = toFloat32(module.b)
    let row = 0
    return parts.map((part) => {
      const [n] = linearShapes(config)[part]
      const own = b.slice(row * rank, (row + n) * rank)
      row += n
      return { module: `${layer}.${part}`, rank, scale, a, b: cpuTensor('F32', [own.length / rank, rank], own) }
    })
  })
}
