import { NetworkError } from '../core/errors.ts'
import { refusal, request, type Token } from './download.ts'

/** A file of a model on the hub. */
export interface HubFile {
  /** With `/` between its parts; from the server, and not to be trusted. */
  readonly path: string
  readonly bytes: number
  readonly sha256?: string
  readonly gitBlob?: string
}

/** The files of a model at one commit. */
export interface HubListing {
  readonly commit: string
  readonly files: readonly HubFile[]
}

/** The hub's address, without a slash at its end: `$HF_ENDPOINT`, or Hugging Face's own. */
export function hubEndpoint(): string {
  return (process.env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '')
}

/** `$HF_TOKEN`, for the hub's own server and no other. */
export function hubToken(): Token | undefined {
  const value = process.env.HF_TOKEN
  return value ? { origin: new URL(hubEndpoint()).origin, value } : undefined
}

/** Whether `text` can be a model's name on the hub: owner/name. */
export function isHubId(text: string): boolean {
  return /^[\w][\w.-]*\/[\w][\w.-]*$/.test(text) && !text.includes('..')
}

/** Where the bytes of a file are. */
export function hubFileUrl(id: string, commit: string, path: string): string {
  return `${hubEndpoint()}/${id}/resolve/${commit}/${path.split('/').map(encodeURIComponent).join('/')}`
}

/**
 * What a model on the hub consists of.
 * @param revision branch, tag or commit; main unless told.
 * @throws NetworkError when the hub cannot be reached or has no such model.
 */
export async function listHubModel(id: string, revision = 'main', signal?: AbortSignal): Promise<HubListing> {
  const { listFiles, modelInfo } = await import('@huggingface/hub')
  // The library sends its own token wherever the hub's links lead; this one does not.
  const fetchFromHub = async (input: string | URL | Request): Promise<Response> => {
    const url = input instanceof Request ? input.url : String(input)
    const response = await request(url, { accept: 'application/json' }, hubToken(), signal)
    if (response.status === 404 || response.status === 401) {
      await response.body?.cancel()
      throw new NetworkError(
        `Cannot pull ${id}: ${hubEndpoint()} has no such model at ${revision}, or it is private or gated; then set HF_TOKEN`,
      )
    }
    if (!response.ok) {
      await response.body?.cancel()
      throw refusal(url, response.status)
    }
    return response
  }
  const common = { hubUrl: hubEndpoint(), fetch: fetchFromHub as typeof fetch }
  try {
    const { sha } = await modelInfo({ ...common, name: id, revision, additionalFields: ['sha'] })
    if (typeof sha !== 'string' || !/^[0-9a-f]{40}$/.test(sha))
      throw new NetworkError(`Cannot pull ${id}: ${hubEndpoint()} names no commit for ${revision}`)
    const files: HubFile[] = []
    for await (const { type, path, size, oid, lfs } of listFiles({
      ...common,
      repo: id,
      revision: sha,
      recursive: true,
    })) {
      if (type !== 'file' || typeof path !== 'string' || !Number.isSafeInteger(size)) continue
      const bytes = lfs?.size ?? size
      if (lfs && /^[0-9a-f]{64}$/.test(lfs.oid)) files.push({ path, bytes, sha256: lfs.oid })
      else if (oid && /^[0-9a-f]{40}$/.test(oid)) files.push({ path, bytes, gitBlob: oid })
      else files.push({ path, bytes })
    }
    return { commit: sha, files }
  } catch (error) {
    if (error instanceof NetworkError || signal?.aborted) throw error
    throw new NetworkError(
      `Cannot pull ${id}: ${hubEndpoint()} does not answer as a hub does (${(error as Error).message})`,
    )
  }
}
