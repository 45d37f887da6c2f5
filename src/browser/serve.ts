import { readPublicKey } from '../bundle/keys.ts'
import { Gpu } from '../runtime/gpu.ts'
import { openGpuRoot } from './open-gpu.ts'
import { type FromWorker, type Request, type Result, type ToWorker, toSent } from './protocol.ts'
import { ModelSession } from './session.ts'

/** The two ends of a worker that are used here. */
export interface Port {
  postMessage(message: FromWorker): void
  addEventListener(type: 'message', listener: (event: MessageEvent<ToWorker>) => void): void
}

/** What a worker can do beside answering: a page asks for it by name. Argument, notes and value are cloned. */
export type Extra = (
  session: ModelSession,
  argument: unknown,
  asked: { readonly signal: AbortSignal; readonly note: (note: unknown) => void },
) => Promise<unknown>

/**
 * Answers the requests of a page: the worker's whole work.
 * @param extras what this worker can do beside that, by name.
 */
export function serve(
  port: Port,
  openGpu: () => Promise<Gpu> = async () => Gpu.open(await openGpuRoot()),
  extras: Readonly<Record<string, Extra>> = {},
): void {
  let session: ModelSession | undefined
  const running = new Map<number, AbortController>()

  const begun = () => {
    if (!session) throw new TypeError('Cannot ask a model that is not loaded')
    return session
  }

  const answer = async (id: number, request: Request, signal: AbortSignal): Promise<Result> => {
    switch (request.kind) {
      case 'load': {
        const { source, publicKey, options } = request
        session = await ModelSession.load(source, {
          ...options,
          signal,
          openGpu,
          key: publicKey === undefined ? undefined : await readPublicKey(publicKey),
          onProgress: (progress) => port.postMessage({ id, progress }),
          onLost: (lost) => port.postMessage({ lost }),
        })
        return { facts: session.facts }
      }
      case 'stream': {
        const onChoice = (choice: import('../inference/nexus-model.ts').Choice) => port.postMessage({ id, choice })
        const pieces = begun().stream({ ...request.prompt, signal, onChoice })
        for (;;) {
          const { done, value } = await pieces.next()
          if (done) return { answer: value }
          port.postMessage({ id, piece: value })
        }
      }
      case 'setAdapter':
        await begun().setAdapter(request.name, request.bytes, request.config ?? undefined)
        return { facts: begun().facts }
      case 'removeAdapter':
        await begun().removeAdapter(request.name)
        return { facts: begun().facts }
      case 'extra': {
        const { name, argument } = request
        if (!Object.hasOwn(extras, name)) throw new TypeError(`This worker cannot ${name}`)
        const note = (text: unknown) => port.postMessage({ id, note: text })
        const value = await extras[name](begun(), argument, { signal, note })
        return { value, facts: begun().facts }
      }
      case 'memory':
        return { memory: begun().memory }
      case 'loseDevice':
        begun().loseDevice()
        return {}
    }
  }

  port.addEventListener('message', ({ data }) => {
    if ('cancel' in data) {
      running.get(data.cancel)?.abort()
      return
    }
    const { id, request } = data
    const controller = new AbortController()
    running.set(id, controller)
    answer(id, request, controller.signal)
      .then(
        (result) => port.postMessage({ id, result }),
        (error: unknown) => port.postMessage({ id, error: toSent(error) }),
      )
      .finally(() => running.delete(id))
  })
}
