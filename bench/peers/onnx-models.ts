// How onnxruntime runs each case: the nodes of its graph. Activations are graph inputs that stay on the GPU; ids and
// quantised weights are constants, as a model has them.
import { bytesOf, eps, type Inputs, type Op, type Operand } from './cases.ts'
import { int4BlockSize } from './int4.ts'
import type { Constant, ElementType, Graph, Node } from './onnx.ts'

/** The graph of a case without its last step. */
interface Body {
  readonly inputs: Inputs
  readonly constants?: readonly Constant[]
  readonly nodes: readonly Node[]
  readonly shape: readonly number[]
}

const microsoft = 'com.microsoft'

/** A node from some inputs to `y`. */
function node(op: string, inputs: readonly string[], attributes: Node['attributes'] = {}, domain = ''): Node {
  return { op, domain, inputs, outputs: ['y'], attributes }
}

function constant(name: string, type: ElementType, shape: readonly number[], data: ArrayBufferView): Constant {
  return { name, type, shape, data }
}

function integers(name: string, ...values: number[]): Constant {
  return constant(name, 'int64', [values.length], BigInt64Array.from(values, BigInt))
}

/** Seen without its last dimensions. */
function flat(operand: Operand, ...shape: number[]): Operand {
  return { ...operand, shape }
}

function product({ a, b }: Inputs, transposeB: boolean): Body {
  const shape = [...a.shape.slice(0, -1), b.shape.at(transposeB ? -2 : -1)!]
  if (!transposeB) return { inputs: { a, b }, nodes: [node('MatMul', ['a', 'b'])], shape }
  if (a.shape.length === 2) return { inputs: { a, b }, nodes: [node('Gemm', ['a', 'b'], { transB: 1 })], shape }
  // It has no batched product with a transposed factor on WebGPU.
  const turn = { op: 'Transpose', inputs: ['b'], outputs: ['turned'], attributes: { perm: [0, 2, 1] } }
  return { inputs: { a, b }, nodes: [turn, node('MatMul', ['a', 'turned'])], shape }
}

function unary(nodes: readonly Node[]) {
  return ({ x }: Inputs): Body => ({ inputs: { x }, nodes, shape: x.shape })
}

function binary(nodes: readonly Node[]) {
  return ({ x, z }: Inputs): Body => ({ inputs: { x, z }, nodes, shape: x.shape })
}

/** What its WebGPU provider has; it has no gradients. */
const bodies: Readonly<Partial<Record<Op, (inputs: Inputs) => Body>>> = {
  matmulNN: (inputs) => product(inputs, false),
  matmulNT: (inputs) => product(inputs, true),
  matmulTN: ({ a, b }) => ({
    inputs: { a, b },
    nodes: [node('Gemm', ['a', 'b'], { transA: 1 })],
    shape: [a.shape[1], b.shape[1]],
  }),
  nf4Linear({ x, codes, scales }) {
    const [k, n] = [x.shape[1], (codes.shape[0] * 8) / x.shape[1]]
    return {
      inputs: { x },
      constants: [
        constant('codes', 'uint8', [(n * k) / 2], bytesOf(codes)),
        constant('scales', 'float32', scales.shape, scales.data),
      ],
      // quant_type 1 is NF4.
      nodes: [node('MatMulBnb4', ['x', 'codes', 'scales'], { K: k, N: n, block_size: 64, quant_type: 1 }, microsoft)],
      shape: [x.shape[0], n],
    }
  },
  int4Linear({ x, int4Codes, int4Scales }) {
    const [k, n] = [x.shape[1], (int4Codes.shape[0] * 8) / x.shape[1]]
    const blocks = k / int4BlockSize
    return {
      inputs: { x },
      constants: [
        constant('codes', 'uint8', [n, blocks, int4BlockSize / 2], bytesOf(int4Codes)),
        constant('scales', 'float32', [n, blocks], int4Scales.data),
      ],
      nodes: [
        node('MatMulNBits', ['x', 'codes', 'scales'], { K: k, N: n, bits: 4, block_size: int4BlockSize }, microsoft),
      ],
      shape: [x.shape[0], n],
    }
  },
  attention({ q, k, v }) {
    const [batch, tokens, heads, size] = q.shape
    const shape = [batch, tokens, heads * size]
    const [query, key, value] = [q, k, v].map((operand) => flat(operand, ...shape))
    const nodes = [node('MultiHeadAttention', ['q', 'k', 'v'], { num_heads: heads }, microsoft)]
    return { inputs: { q: query, k: key, v: value }, nodes, shape }
  },
  causalAttention({ q, k, v }) {
    const [batch, tokens, heads, size] = q.shape
    const [, keys, groups] = k.shape
    const cache = ['present_k', 'present_v']
    const attributes = { num_heads: heads, kv_num_heads: groups }
    const inputs = ['q', 'k', 'v', '', '', 'last', 'total']
    return {
      inputs: {
        q: flat(q, batch, tokens, heads * size),
        k: flat(k, batch, keys, groups * size),
        v: flat(v, batch, keys, groups * size),
      },
      constants: [
        constant('last', 'int32', [batch], new Int32Array(batch).fill(keys - 1)),
        constant('total', 'int32', [1], Int32Array.of(keys)),
      ],
      nodes: [{ op: 'GroupQueryAttention', domain: microsoft, inputs, outputs: ['y', ...cache], attributes }],
      shape: [batch, tokens, heads * size],
    }
  },
  rmsNorm: ({ x, weight }) => ({
    inputs: { x, weight },
    nodes: [node('SimplifiedLayerNormalization', ['x', 'weight'], { axis: -1, epsilon: { float: eps } })],
    shape: x.shape,
  }),
  rope({ x, cosines, sines }) {
    const [batch, tokens, heads, size] = x.shape
    const half = size / 2
    const positions = BigInt64Array.from({ length: batch * tokens }, (_, i) => BigInt(i % tokens))
    return {
      inputs: { x: flat(x, batch, tokens, heads * size) },
      constants: [
        constant('positions', 'int64', [batch, tokens], positions),
        constant('cosines', 'float32', [tokens, half], cosines.data),
        constant('sines', 'float32', [tokens, half], sines.data),
      ],
      nodes: [node('RotaryEmbedding', ['x', 'positions', 'cosines', 'sines'], { num_heads: heads }, microsoft)],
      shape: [batch, tokens, heads * size],
    }
  },
  embedding: ({ table, ids }) => ({
    inputs: { table },
    constants: [constant('ids', 'int32', ids.shape, ids.data)],
    nodes: [node('Gather', ['table', 'ids'])],
    shape: [ids.shape[0], table.shape[1]],
  }),
  crossEntropy: ({ x, ids }) => ({
    inputs: { x },
    constants: [constant('ids', 'int32', [ids.shape[0], 1], ids.data), integers('axes', 1)],
    nodes: [
      { op: 'ReduceLogSumExp', inputs: ['x', 'axes'], outputs: ['logs'], attributes: { keepdims: 1 } },
      { op: 'GatherElements', inputs: ['x', 'ids'], outputs: ['chosen'], attributes: { axis: 1 } },
      node('Sub', ['logs', 'chosen']),
    ],
    shape: [x.shape[0], 1],
  }),
  softmax: unary([node('Softmax', ['x'])]),
  rowSum: ({ x }) => ({
    inputs: { x },
    constants: [integers('axes', 1)],
    nodes: [node('ReduceSum', ['x', 'axes'])],
    shape: [x.shape[0], 1],
  }),
  silu: unary([node('QuickGelu', ['x'], { alpha: { float: 1 } }, microsoft)]),
  gelu: unary([node('Gelu', ['x'], { approximate: 'tanh' })]),
  swiglu: binary([
    { ...node('QuickGelu', ['x'], { alpha: { float: 1 } }, microsoft), outputs: ['gate'] },
    node('Mul', ['gate', 'z']),
  ]),
  add: binary([node('Add', ['x', 'z'])]),
  mul: binary([node('Mul', ['x', 'z'])]),
}

/** The graph of `op`, with what its inputs hold; none for an op that it lacks. */
export function graphOf(op: Op, all: Inputs): { graph: Graph; inputs: Inputs } | undefined {
  const body = bodies[op]
  if (!body) return undefined
  const { inputs, constants = [], nodes, shape } = body(all)
  const ports = Object.entries(inputs).map(([name, input]) => ({ name, type: 'float32', shape: input.shape }) as const)
  return { inputs, graph: { inputs: ports, outputs: [{ name: 'y', type: 'float32', shape }], constants, nodes } }
}

/** `graph` with a second output `done`: the first element of `y`, whose arrival on the CPU says that all is finished. */
export function withDone(graph: Graph): Graph {
  const ones = graph.outputs[0].shape.map(() => 1)
  return {
    ...graph,
    outputs: [...graph.outputs, { name: 'done', type: 'float32', shape: ones }],
    constants: [...(graph.constants ?? []), integers('done_from', ...ones.map(() => 0)), integers('done_to', ...ones)],
    nodes: [...graph.nodes, { op: 'Slice', inputs: ['y', 'done_from', 'done_to'], outputs: ['done'] }],
  }
}

/** A graph that copies each of its inputs to an output of the same name with `_gpu` behind it. */
export function uploadGraph(inputs: Inputs): Graph {
  const ports = Object.entries(inputs).map(([name, input]) => ({ name, type: 'float32', shape: input.shape }) as const)
  return {
    inputs: ports,
    outputs: ports.map((port) => ({ ...port, name: `${port.name}_gpu` })),
    nodes: ports.map(({ name }) => ({ op: 'Identity', inputs: [name], outputs: [`${name}_gpu`] })),
  }
}
