// Measures what a browser downloads for each entry of the package, minified and compressed, and writes docs/sizes.md.
// Run by `npm run sizes`; `--check` only compares. Both fail when the inference entry passes its limit.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

const root = join(import.meta.dirname, '..')
const target = join(root, 'docs/sizes.md')
/** Most bytes, compressed, of what runs a bundle in a browser. */
const limit = 150_000
/** Share by which a size may differ before the table is old. */
const tolerance = 0.02

interface Row {
  readonly what: string
  /** The program that is bundled. */
  readonly code: string
  readonly limited?: boolean
}

const rows: readonly Row[] = [
  { what: '`nexus/inference`: run a bundle', code: "export * from './src/inference/index.ts'", limited: true },
  { what: '`NexusModel` alone', code: "export { NexusModel } from './src/inference/index.ts'", limited: true },
  {
    what: '`nexus/browser`: the same, with cache and worker',
    code: "export * from './src/browser/index.ts'",
    limited: true,
  },
  { what: '`nexus/browser/worker`', code: "import './src/browser/worker.ts'", limited: true },
  {
    what: '`BrowserModel` alone: what the page itself loads',
    code: "export { BrowserModel } from './src/browser/index.ts'",
  },
  { what: '`nexus/bundle`', code: "export * from './src/bundle/index.ts'" },
  { what: '`nexus/formats`', code: "export * from './src/formats/index.ts'" },
  { what: '`nexus/runtime`', code: "export * from './src/runtime/index.ts'" },
  { what: '`nexus/kernels`', code: "export * from './src/kernels/index.ts'" },
  { what: 'one kernel, `rmsNorm`', code: "export { rmsNorm } from './src/kernels/index.ts'" },
  { what: '`nexus/pca`', code: "export * from './src/pca/index.ts'" },
]

async function sizeOf(code: string): Promise<{ minified: number; compressed: number }> {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: root, loader: 'ts' },
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    legalComments: 'none',
    logLevel: 'error',
  })
  const { contents } = outputFiles[0]
  return { minified: contents.length, compressed: gzipSync(contents, { level: 9 }).length }
}

const kilo = (bytes: number) => (bytes / 1000).toFixed(1)
const faults: string[] = []
const lines: string[] = []
for (const { what, code, limited } of rows) {
  const { minified, compressed } = await sizeOf(code)
  lines.push(`| ${what} | ${kilo(minified)} | ${kilo(compressed)} |`)
  if (limited && compressed > limit)
    faults.push(`${what} has ${kilo(compressed)} kB compressed, more than ${kilo(limit)}`)
}
const text = `# What a browser downloads

Without weights, in kB: bundled and minified by esbuild for browsers, then compressed with gzip. What runs a bundle may have
${limit / 1000} kB. Written by \`npm run sizes\`.

| entry | minified | compressed |
|---|---|---|
${lines.join('\n')}
`

if (process.argv.includes('--check')) {
  const numbers = (table: string) => [...table.matchAll(/\| ([\d.]+) \| ([\d.]+) \|/g)].flatMap(([, a, b]) => [+a, +b])
  const [was, is] = [numbers(readFileSync(target, 'utf8')), numbers(text)]
  const same = was.length === is.length && was.every((size, i) => Math.abs(is[i] - size) <= tolerance * size + 0.1)
  if (!same) faults.push('docs/sizes.md is old: run npm run sizes')
} else {
  writeFileSync(target, text)
  console.error(lines.join('\n'))
}
for (const fault of faults) console.error(fault)
process.exit(faults.length === 0 ? 0 : 1)
