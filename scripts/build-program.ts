// Builds what a bundle carries to run by itself, from the inference code alone: bin/nexus_cli.mjs and src/nexus.mjs, in
// dist/program. The same sources give the same bytes. Run by `npm run program` and when the package is installed.
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type BuildOptions, build, type Plugin } from 'esbuild'
import { inferenceOnly } from './inference-only.ts'

const root = join(import.meta.dirname, '..')
const outdir = join(root, 'dist/program')
/** Rooms that an inference program has nothing of. */
const excluded = /^src\/(train|distill|pca|data|demo|cli)\//

const common = {
  absWorkingDir: root,
  outdir,
  bundle: true,
  minify: true,
  format: 'esm' as const,
  platform: 'node' as const,
  target: 'node22',
  legalComments: 'none' as const,
  logLevel: 'error' as const,
  metafile: true as const,
  external: ['webgpu'],
  outExtension: { '.js': '.mjs' },
} satisfies BuildOptions

/** The command line imports the library beside it instead of holding it. */
const library: Plugin = {
  name: 'library',
  setup(building) {
    building.onResolve({ filter: /\/inference\/index\.ts$/ }, () => ({ path: '../src/nexus.mjs', external: true }))
  },
}

await rm(outdir, { recursive: true, force: true })
const results = [
  await build({ ...common, entryPoints: { 'src/nexus': 'src/inference/index.ts' }, plugins: [inferenceOnly] }),
  await build({ ...common, entryPoints: { 'bin/nexus_cli': 'src/node/nexus-cli.ts' }, plugins: [library] }),
]
for (const { metafile } of results)
  for (const input of Object.keys(metafile.inputs))
    if (excluded.test(input)) throw new Error(`A bundle’s program may not hold ${input}`)
