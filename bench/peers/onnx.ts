// Writes ONNX models in memory: the few protobuf messages that a graph of one or two nodes needs.
// Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).

/** Element types of ONNX that the peers' models use, by their numbers in TensorProto.DataType. */
const elementTypes = { float32: 1, uint8: 2, int32: 6, int64: 7 } as const

/** A name of an element type, as onnxruntime spells it. */
export type ElementType = keyof typeof elementTypes

/** A graph input or output. */
export interface Port {
  readonly name: string
  readonly type: ElementType
  readonly shape: readonly number[]
}

/** A constant tensor; its bytes are little-endian and row-major. */
export interface Constant extends Port {
  readonly data: ArrayBufferView
}

/** One node; integers are written as INT or INTS, other numbers must be given as `{ float }`. */
export interface Node {
  readonly op: string
  /** '' unless it is one of onnxruntime's own, 'com.microsoft'. */
  readonly domain?: string
  /** Names; '' leaves an optional input out. */
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  readonly attributes?: Readonly<Record<string, number | string | readonly number[] | { readonly float: number }>>
}

/** A graph. */
export interface Graph {
  readonly inputs: readonly Port[]
  readonly outputs: readonly Port[]
  readonly constants?: readonly Constant[]
  readonly nodes: readonly Node[]
}

const opset = 21
const irVersion = 10

/** The bytes of a model with one graph. */
export function writeModel(graph: Graph): Uint8Array<ArrayBuffer> {
  const domains = ['', 'com.microsoft']
  return message(
    varintField(1, irVersion),
    field(7, writeGraph(graph)),
    ...domains.map((domain) => field(8, message(text(1, domain), varintField(2, domain === '' ? opset : 1)))),
  )
}

function writeGraph({ inputs, outputs, constants = [], nodes }: Graph): Uint8Array {
  return message(
    ...nodes.map((node) => field(1, writeNode(node))),
    text(2, 'graph'),
    ...constants.map((constant) => field(5, writeConstant(constant))),
    ...inputs.map((port) => field(11, writePort(port))),
    ...outputs.map((port) => field(12, writePort(port))),
  )
}

function writeNode({ op, domain = '', inputs, outputs, attributes = {} }: Node): Uint8Array {
  return message(
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(4, op),
    ...Object.entries(attributes).map(([name, value]) => field(5, writeAttribute(name, value))),
    text(7, domain),
  )
}

function writeAttribute(name: string, value: NonNullable<Node['attributes']>[string]): Uint8Array {
  if (typeof value === 'number') return message(text(1, name), varintField(3, value), varintField(20, 2))
  if (typeof value === 'string') return message(text(1, name), text(4, value), varintField(20, 3))
  if ('float' in value) return message(text(1, name), floatField(2, value.float), varintField(20, 1))
  return message(text(1, name), ...value.map((item) => varintField(8, item)), varintField(20, 7))
}

function writeConstant({ name, type, shape, data }: Constant): Uint8Array {
  return message(
    ...shape.map((size) => varintField(1, size)),
    varintField(2, elementTypes[type]),
    text(8, name),
    field(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  )
}

function writePort({ name, type, shape }: Port): Uint8Array {
  const dimensions = message(...shape.map((size) => field(1, message(varintField(1, size)))))
  const tensor = message(varintField(1, elementTypes[type]), field(2, dimensions))
  return message(text(1, name), field(2, message(field(1, tensor))))
}

const wire = { varint: 0, bytes: 2, fixed32: 5 } as const

function message(...fields: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(fields.reduce((size, part) => size + part.length, 0))
  let at = 0
  for (const part of fields) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

/** An integer in base 128, lowest digits first; negative ones in 64-bit two's complement. */
function varint(value: number): number[] {
  const digits: number[] = []
  let rest = BigInt.asUintN(64, BigInt(value))
  for (; rest > 127n; rest >>= 7n) digits.push(Number(rest & 127n) | 128)
  return [...digits, Number(rest)]
}

function varintField(number: number, value: number): Uint8Array {
  return Uint8Array.from([...varint((number << 3) | wire.varint), ...varint(value)])
}

function floatField(number: number, value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setFloat32(0, value, true)
  return message(Uint8Array.from(varint((number << 3) | wire.fixed32)), bytes)
}

function field(number: number, bytes: Uint8Array): Uint8Array {
  return message(Uint8Array.from([...varint((number << 3) | wire.bytes), ...varint(bytes.length)]), bytes)
}

function text(number: number, value: string): Uint8Array {
  return field(number, new TextEncoder().encode(value))
}
