// The worker of the page that trains: all that a bundle's own worker does, and learning a text.
import { type Extra, type Port, serve } from '../src/browser/serve.ts'
import { writePeftZip } from '../src/formats/peft-zip.ts'
import { fitText } from '../src/train/fit-text.ts'
import { trainOnText } from '../src/train/text-adapter.ts'
import type { Learned, Lesson } from './model.ts'

const train: Extra = (session, lesson, { signal, note }) =>
  session.use(async ({ backbone, tokenizer }) => {
    const { text, changed } = fitText(tokenizer, (lesson as Lesson).text)
    using adapter = await trainOnText(backbone, tokenizer, { ...(lesson as Lesson), text, onStep: note, signal })
    const zip = writePeftZip(await adapter.toTensors('F32'), { layers: backbone.config.layers })
    return { zip, changed } satisfies Learned
  })

serve(globalThis as unknown as Port, undefined, { train })
