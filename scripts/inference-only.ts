// What a bundle carries runs models and trains none: this leaves gradients out of it, as the package's own build does not.
import { readFile } from 'node:fs/promises'
import { type Plugin, transform } from 'esbuild'
import { kernelsModule } from './wgsl-kernels.ts'

/** Kernels without their backward entry points, and ops that put no gradient on the tape; what only those use goes with them. */
export const inferenceOnly: Plugin = {
  name: 'inference-only',
  setup(building) {
    building.onLoad({ filter: /\/src\/kernels\/wgsl\.gen\.ts$/ }, async () => ({
      contents: await kernelsModule({ backward: false }),
      loader: 'ts',
    }))
    building.onLoad({ filter: /\/src\/(?:kernels|runtime)\/[\w-]+\.ts$/ }, async ({ path }) => {
      const { code } = await transform(await readFile(path, 'utf8'), { loader: 'ts', target: 'node22' })
      return { contents: withoutGradients(code), loader: 'js' }
    })
  },
}

/** `code` with 'none' for the fourth argument of every `step.node(…)`: the gradient of an op. */
export function withoutGradients(code: string): string {
  let text = ''
  let from = 0
  for (const call of code.matchAll(/\b(?:step|this|inner)\.node\(/g)) {
    const begin = call.index + call[0].length
    if (begin < from) continue
    const commas = []
    let depth = 0
    let end = begin
    for (const { 0: token, index } of code.slice(begin).matchAll(/'[^'\n]*'|"[^"\n]*"|`[^`]*`|[([{}\])]|,/g)) {
      end = begin + index
      if (token === ',' && depth === 0) commas.push(end)
      else if ('([{'.includes(token)) depth++
      else if (')]}'.includes(token) && --depth < 0) break
    }
    if (depth >= 0 || commas.length < 3) throw new SyntaxError(`Cannot read ${code.slice(call.index, end)}`)
    text += `${code.slice(from, commas[2])}, "none"`
    from = end
  }
  return text + code.slice(from)
}
