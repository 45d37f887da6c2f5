// The worker of the page that trains: all that a bundle's own worker does, and learning a text.
import { type Extra, type Port, serve } from '../src/browser/serve.ts'
import { writePeftZip } from '../src/formats/peft-zip.ts'
import { trainOnText } from '../src/train/text-adapter.ts'
import type { Lesson } from './model.ts'

const train: Extra = (session, lesson, { signal, note }) =>
  session.use(async ({ backbone, tokenizer }) => {
    using adapter = await trainOnText(backbone, tokenizer, { ...(lesson as Lesson), onStep: note, signal })
    return writePeftZip(await adapter.toTensors('F32'), { layers: backbone.config.layers })
  })

serve(globalThis as unknown as Port, undefined, { train })
