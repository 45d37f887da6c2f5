import { BrowserModel } from '../src/browser/browser-model.ts'
import { unzipPeft } from '../src/formats/peft-files.ts'
import type { Learned, Lesson, LessonStep, OpenModel, PlaygroundModel } from './model.ts'

/** Loads bundles into a worker. @param train whether the worker trains too. */
export function openInWorker(train: boolean): OpenModel {
  return async (source, { enableRestricted, key, onProgress, signal }) => {
    const listeners: ((message: string) => void)[] = []
    const model = await BrowserModel.load(source, {
      ...{ enableRestricted, onProgress, signal },
      ...(key !== undefined && { publicKey: key }),
      onLost: (message) => {
        for (const listener of listeners) listener(message)
      },
    })
    const { manifest, report, gpu, config } = model
    const addAdapter = async (name: string, zip: Uint8Array<ArrayBuffer>) => {
      const { settings, file } = unzipPeft(zip)
      await model.setAdapter(name, file, settings)
    }
    const page: PlaygroundModel = {
      ...{ manifest, report, gpu },
      // The cache of keys and values ends there.
      contextLength: Math.min(4096, config.contextLength),
      routed: Object.values(manifest.capabilities).some(({ restricted }) => !restricted),
      get capabilities() {
        return model.capabilities
      },
      async generate(request, onPiece, signal) {
        const pieces = model.stream({ ...request, signal })
        for (;;) {
          const { done, value } = await pieces.next()
          if (done) return value
          onPiece(value)
        }
      },
      memory: async () => (await model.memory()).liveBytes,
      addAdapter,
      removeAdapter: (name) => model.removeAdapter(name),
      onLost: (listener) => void listeners.push(listener),
      close: () => model.close(),
      ...(train && {
        async train(lesson: Lesson, onStep: (step: LessonStep) => void, signal: AbortSignal) {
          const onNote = (note: unknown) => onStep(note as LessonStep)
          const learned = (await model.extra('train', lesson, { signal, onNote })) as Learned
          await addAdapter(lesson.name, learned.zip)
          return learned
        },
      }),
    }
    return page
  }
}
