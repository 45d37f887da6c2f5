// TensorFlow.js on its WebGPU backend. Where it has no op, the op is composed as its users would.
// A timed run records the op, submits it and waits for the queue; the result stays on the GPU.
import { eps, type Inputs, loraScale, type Op, type PeerCase } from './cases.ts'
import type { Tf, TfTensor, TfWebGpuBackend } from './interfaces.ts'
import type { Peer, Prepared } from './peer.ts'

type Tensors = Readonly<Record<string, TfTensor>>

/** Opens the backend; `navigator.gpu` must be there before @tensorflow/tfjs-backend-webgpu is imported. */
export async function openTfjs(tf: Tf): Promise<Peer> {
  await tf.setBackend('webgpu')
  await tf.ready()
  const backend = tf.backend() as TfWebGpuBackend
  const ops = opsOf(tf)
  return {
    version: tf.version_core,
    async prepare(item: PeerCase, inputs: Inputs): Promise<Prepared | undefined> {
      const op = ops[item.op]
      if (!op) return undefined
      const tensors: Record<string, TfTensor> = {}
      for (const [name, { data, shape, dtype }] of Object.entries(inputs))
        tensors[name] =
          dtype === 'f32' ? tf.tensor(data, shape, 'float32') : tf.tensor(Int32Array.from(data), shape, 'int32')
      const compute = () => tf.tidy(() => op(tensors))
      return {
        async run() {
          const y = compute()
          backend.endComputePassEncoder()
          backend.submitQueue()
          await backend.queue.onSubmittedWorkDone()
          y.dispose()
        },
        async read() {
          const y = compute()
          const values = await y.data()
          y.dispose()
          return values
        },
        free() {
          for (const tensor of Object.values(tensors)) tensor.dispose()
        },
      }
    },
  }
}

function opsOf(tf: Tf): Partial<Record<Op, (tensors: Tensors) => TfTensor>> {
  const silu = (x: TfTensor) => tf.mul(x, tf.sigmoid(x))
  const attention = ({ q, k, v, mask }: Tensors) => {
    const [, , heads, size] = q.shape
    const groups = k.shape[2]
    const byHead = (x: TfTensor) => tf.transpose(x, [0, 2, 1, 3])
    // Key heads are repeated for their group of query heads.
    const repeated = (x: TfTensor) => {
      const [batch, keys] = x.shape
      const wide = tf.tile(tf.reshape(byHead(x), [batch, groups, 1, keys * size]), [1, 1, heads / groups, 1])
      return tf.reshape(wide, [batch, heads, keys, size])
    }
    let scores = tf.mul(tf.matMul(byHead(q), repeated(k), false, true), tf.scalar(size ** -0.5))
    if (mask) scores = tf.add(scores, mask)
    return byHead(tf.matMul(tf.softmax(scores), repeated(v)))
  }
  return {
    matmulNN: ({ a, b }) => tf.matMul(a, b),
    matmulNT: ({ a, b }) => tf.matMul(a, b, false, true),
    matmulTN: ({ a, b }) => tf.matMul(a, b, true),
    attention,
    causalAttention: attention,
    rmsNorm: ({ x, weight }) =>
      tf.mul(tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), tf.scalar(eps)))), weight),
    rope({ x, cosines, sines }) {
      const [left, right] = tf.split(x, 2, 3)
      const turnedLeft = tf.sub(tf.mul(left, cosines), tf.mul(right, sines))
      return tf.concat([turnedLeft, tf.add(tf.mul(right, cosines), tf.mul(left, sines))], 3)
    },
    embedding: ({ table, ids }) => tf.gather(table, ids),
    crossEntropy({ x, ids }) {
      const chosen = tf.sum(tf.mul(x, tf.oneHot(ids, x.shape[1])), 1)
      return tf.sub(tf.logSumExp(x, 1), chosen)
    },
    softmax: ({ x }) => tf.softmax(x),
    rowSum: ({ x }) => tf.sum(x, 1),
    silu: ({ x }) => silu(x),
    gelu({ x }) {
      const cube = tf.mul(tf.mul(tf.square(x), x), tf.scalar(0.044715))
      const inner = tf.tanh(tf.mul(tf.add(x, cube), tf.scalar(Math.sqrt(2 / Math.PI))))
      return tf.mul(tf.mul(x, tf.scalar(0.5)), tf.add(inner, tf.scalar(1)))
    },
    swiglu: ({ x, z }) => tf.mul(silu(x), z),
    loraStep({ x, gate, up, down, a, b }) {
      const loss = (trained: TfTensor) => {
        const update = tf.matMul(tf.matMul(x, trained, false, true), b, false, true)
        const gated = tf.add(tf.matMul(x, gate, false, true), tf.mul(update, tf.scalar(loraScale)))
        const y = tf.matMul(tf.mul(silu(gated), tf.matMul(x, up, false, true)), down, false, true)
        return tf.sum(tf.square(y))
      }
      return tf.grad(loss)(a)
    },
    add: ({ x, z }) => tf.add(x, z),
    mul: ({ x, z }) => tf.mul(x, z),
  }
}
