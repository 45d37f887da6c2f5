// jax-js on WebGPU, each op under jit.
// A timed run calls the compiled function and waits with blockUntilReady, which copies nothing back.
import { eps, type Inputs, loraScale, type Op, type PeerCase } from './cases.ts'
import type { Jax, JaxArray } from './interfaces.ts'
import type { Peer, Prepared } from './peer.ts'

/** Opens the device; `navigator.gpu` must be there. @throws Error when jax-js finds no WebGPU. */
export async function openJax(jax: Jax, version: string): Promise<Peer> {
  const devices = await jax.init('webgpu')
  if (!devices.includes('webgpu')) throw new Error('jax-js found no WebGPU device')
  jax.defaultDevice('webgpu')
  const ops = opsOf(jax)
  return {
    version,
    async prepare(item: PeerCase, inputs: Inputs): Promise<Prepared | undefined> {
      const known = ops[item.op]
      if (!known) return undefined
      const [names, op] = known
      const arrays = names.map((name) => {
        const { data, shape, dtype } = inputs[name]
        return dtype === 'f32'
          ? jax.numpy.array(data, { shape })
          : jax.numpy.array(Int32Array.from(data), { shape, dtype: jax.numpy.int32 })
      })
      const compiled = jax.jit(op)
      // A call takes its arguments over; `.ref` keeps ours.
      const compute = () => compiled(...arrays.map((array) => array.ref))
      return {
        async run() {
          const y = await jax.blockUntilReady(compute())
          y.dispose()
        },
        async read() {
          return compute().data()
        },
        free() {
          for (const array of arrays) array.dispose()
          compiled.dispose()
        },
      }
    },
  }
}

type Function = (...arrays: JaxArray[]) => JaxArray

function opsOf({ numpy: np, nn, grad }: Jax): Partial<Record<Op, readonly [names: readonly string[], op: Function]>> {
  return {
    matmulNN: [['a', 'b'], (a, b) => np.matmul(a, b)],
    matmulNT: [['a', 'b'], (a, b) => np.matmul(a, np.matrixTranspose(b))],
    matmulTN: [['a', 'b'], (a, b) => np.matmul(np.matrixTranspose(a), b)],
    attention: [['q', 'k', 'v'], (q, k, v) => nn.dotProductAttention(q, k, v)],
    causalAttention: [['q', 'k', 'v'], (q, k, v) => nn.dotProductAttention(q, k, v, { isCausal: true })],
    rmsNorm: [
      ['x', 'weight'],
      (x, weight) => {
        const mean = np.mean(np.square(x.ref), -1, { keepdims: true })
        return np.multiply(np.divide(x, np.sqrt(np.add(mean, eps))), weight)
      },
    ],
    rope: [
      ['x', 'cosines', 'sines'],
      (x, cosines, sines) => {
        const [left, right] = np.split(x, 2, -1)
        const turnedLeft = np.subtract(np.multiply(left.ref, cosines.ref), np.multiply(right.ref, sines.ref))
        return np.concatenate([turnedLeft, np.add(np.multiply(right, cosines), np.multiply(left, sines))], -1)
      },
    ],
    embedding: [['table', 'ids'], (table, ids) => np.take(table, ids, 0)],
    crossEntropy: [
      ['x', 'ids'],
      (x, ids) => {
        const chosen = np.takeAlongAxis(x.ref, np.reshape(ids, [-1, 1]), -1)
        return np.subtract(nn.logsumexp(x, -1), np.reshape(chosen, [-1]))
      },
    ],
    softmax: [['x'], (x) => nn.softmax(x, -1)],
    rowSum: [['x'], (x) => np.sum(x, -1)],
    silu: [['x'], (x) => nn.silu(x)],
    gelu: [['x'], (x) => nn.gelu(x, { approximate: true })],
    swiglu: [['x', 'z'], (x, z) => np.multiply(nn.silu(x), z)],
    loraStep: [
      ['a', 'b', 'x', 'gate', 'up', 'down'],
      grad((a, b, x, gate, up, down) => {
        const times = (left: JaxArray, weight: JaxArray) => np.matmul(left, np.matrixTranspose(weight))
        const update = np.multiply(times(times(x.ref, a), b), loraScale)
        const gated = np.add(times(x.ref, gate), update)
        const y = times(np.multiply(nn.silu(gated), times(x, up)), down)
        return np.sum(np.square(y))
      }),
    ],
    add: [['x', 'z'], (x, z) => np.add(x, z)],
    mul: [['x', 'z'], (x, z) => np.multiply(x, z)],
  }
}
