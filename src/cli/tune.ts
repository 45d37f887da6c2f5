import type { Command } from 'commander'
import { productTiers } from '../kernels/product.ts'
import { tuneProducts } from '../kernels/tune.ts'
import { openGpu } from './open-gpu.ts'
import { makeOutput, table } from './output.ts'
import { saveTuning, tuningPath } from './tuning-store.ts'

/** Adds `nexus tune`. */
export function registerTune(program: Command): void {
  program
    .command('tune')
    .description('times the kernels that do the same work on this adapter, and remembers the fastest of each')
    .option('--json', 'one JSON object a line')
    .option('--adapter <name>', 'auto, software, or a part of an adapter’s name')
    .action(tune)
}

async function tune({ json = false, adapter }: { json?: boolean; adapter?: string }): Promise<void> {
  const output = makeOutput(json)
  using gpu = await openGpu(output, adapter)
  const found = await tuneProducts(gpu, { onProgress: output.onProgress })
  output.close()
  const tiers = productTiers(gpu, 'f16')
  const cell = (ms: number | undefined) => (ms === undefined ? '-' : ms.toFixed(2))
  output.print(
    table(
      ['work', ...tiers.map((tier) => `${tier} ms`), 'chosen'],
      found.map(({ work, ms, chosen }) => [work, ...tiers.map((tier) => cell(ms[tier])), chosen]),
    ),
  )
  await saveTuning(gpu)
  output.print(`\nRemembered in ${tuningPath()}`)
  output.emit('tuned', { adapter: gpu.name, found, path: tuningPath() })
}
