// onnxruntime with its WebGPU execution provider, in Node and in a browser.
// A timed run is session.run with inputs and output on the GPU, plus one Slice of a single element whose download ends
// the run: onnxruntime has no call that only waits.
import type { Inputs, PeerCase } from './cases.ts'
import type { InferenceSession, Ort, OrtTensor } from './interfaces.ts'
import { type Graph, writeModel } from './onnx.ts'
import { graphOf, uploadGraph, withDone } from './onnx-models.ts'
import type { Peer, Prepared } from './peer.ts'

/** @param ort the module: onnxruntime-node or onnxruntime-web/webgpu. */
export function openOrt(ort: Ort): Peer {
  const session = (graph: Graph, preferredOutputLocation: string | Record<string, string>) =>
    ort.InferenceSession.create(writeModel(graph), {
      executionProviders: ['webgpu'],
      preferredOutputLocation,
      logSeverityLevel: 3,
      // An op that WebGPU lacks must fail, not run on the processor unnoticed.
      extra: { session: { disable_cpu_ep_fallback: '1' } },
    })
  return {
    version: ort.env.versions.common,
    async prepare(item: PeerCase, all: Inputs): Promise<Prepared | undefined> {
      const made = graphOf(item.op, all)
      if (!made) return undefined
      const { graph, inputs } = made
      const upload = await session(uploadGraph(inputs), 'gpu-buffer')
      const host = Object.entries(inputs).map(([name, { data, shape }]) => [
        name,
        new ort.Tensor('float32', data, shape),
      ])
      const uploaded = await upload.run(Object.fromEntries(host))
      const feeds = Object.fromEntries(Object.keys(inputs).map((name) => [name, uploaded[`${name}_gpu`]]))
      const timed = await session(withDone(graph), { y: 'gpu-buffer', done: 'cpu' })
      return {
        async run() {
          const { y } = await timed.run(feeds)
          y.dispose()
        },
        read: () => readOnce(session(graph, 'cpu'), feeds),
        free() {
          for (const tensor of Object.values(feeds)) tensor.dispose()
          void timed.release()
          void upload.release()
        },
      }
    },
  }
}

/** The result of the same graph with its output on the CPU: Node's onnxruntime cannot download a GPU tensor. */
async function readOnce(opening: Promise<InferenceSession>, feeds: Record<string, OrtTensor>) {
  const session = await opening
  const { y } = await session.run(feeds)
  const values = Float32Array.from(y.data)
  await session.release()
  return values
}
