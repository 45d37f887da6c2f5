import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type PipelineRequest, runPipeline } from '../distill/pipeline.ts'
import { parseRegistry } from '../distill/registry.ts'
import type { StageRecord } from '../distill/run.ts'
import { parseContracts } from '../distill/scope.ts'
import { loadTokenizer } from '../formats/tokenizer.ts'
import { readJson } from '../host/files.ts'
import { tinyCapabilities } from './capabilities.ts'

/** What a NIWT run of built-in capabilities is asked to do. */
export interface NiwtRequest
  extends Omit<PipelineRequest, 'contracts' | 'teachers' | 'capabilities' | 'tokenizerJson' | 'restricted'> {
  /** A Hugging Face folder of a model with the vocabulary of single characters. */
  readonly teacher: string
  /** retention_contracts.md */
  readonly contracts: string
  /** ModelName-Parameters-Category-BestFeature.csv */
  readonly registry: string
}

/** Starts or resumes a run: stages 0 to 6. @returns the records of all stages. */
export async function runNiwt(request: NiwtRequest): Promise<StageRecord[]> {
  const tokenizerJson = (await readJson(join(request.teacher, 'tokenizer.json'))) as object
  const capabilities = tinyCapabilities(loadTokenizer(tokenizerJson))
  const contracts = parseContracts(
    await readFile(request.contracts, 'utf8'),
    capabilities.map(({ name }) => name),
  )
  const teachers = parseRegistry(await readFile(request.registry, 'utf8'))
  return runPipeline({ ...request, tokenizerJson, capabilities, contracts, teachers })
}
