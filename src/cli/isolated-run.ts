// A process of its own that runs a bundle and knows nothing else: see isolation.ts, which starts it. Its one argument is
// the bundle; it prints one JSON object.
import { networkInterfaces } from 'node:os'
import { messageOf } from '../core/errors.ts'
import { openGpuRoot } from '../host/gpu-root.ts'
import { NexusModel } from '../inference/nexus-model.ts'
import { openBundle } from '../node/host.ts'
import { Gpu } from '../runtime/gpu.ts'

/** What the process found. */
export interface IsolatedResult {
  /** Why the bundle does not run; absent when it does. */
  readonly fault?: string
  readonly answers: Readonly<Record<string, string>>
  /** What the process saw of the world. */
  readonly saw: { readonly network: boolean; readonly otherFiles: boolean }
}

// Present only under Node's permission model.
const { permission } = process as { permission?: { has(scope: string, path: string): boolean } }

async function run(path: string): Promise<IsolatedResult> {
  const saw = {
    network: Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ internal }) => !internal)),
    otherFiles: permission?.has('fs.read', process.env.NEXUS_OUTSIDE ?? '/') ?? true,
  }
  const answers: Record<string, string> = {}
  try {
    await using bundle = await openBundle(path)
    using gpu = await Gpu.open(await openGpuRoot({ install: false }))
    using model = await NexusModel.load(bundle.files, { gpu, enableRestricted: true })
    for (const [capability, { example: prompt }] of Object.entries(model.manifest.capabilities)) {
      const logits = await model.logits({ prompt, capability })
      if (!logits.every(Number.isFinite)) throw new Error(`${capability} gives logits that are not finite`)
      const ask = async () => (await model.generate({ prompt, capability, maxTokens: 8 })).text
      answers[capability] = await ask()
      if ((await ask()) !== answers[capability]) throw new Error(`${capability} answers differently the second time`)
    }
    return { answers, saw }
  } catch (error) {
    return { fault: messageOf(error), answers, saw }
  }
}

process.stdout.write(`${JSON.stringify(await run(process.argv[2]))}\n`, () => process.exit(0))
