// Writes src/kernels/wgsl.gen.ts from wgsl/*.wgsl. Run by `npm run generate`; `--check` fails when the file on disk is stale.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { kernelsModule } from './wgsl-kernels.ts'

const target = join(import.meta.dirname, '../src/kernels/wgsl.gen.ts')
const text = await kernelsModule({ backward: true })
if (process.argv.includes('--check')) {
  if (readFileSync(target, 'utf8') !== text) throw new Error('wgsl.gen.ts is stale: run `npm run generate`')
} else {
  writeFileSync(target, text)
  console.error(`wgsl.gen.ts: ${text.match(/^\/\*\* Entry points of [^,]*\. /gm)?.length} kernels`)
}
