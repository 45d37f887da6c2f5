// The parts of the peers' interfaces that the bench calls. The peers have a package.json of their own, so these types
// must be there even where they are not installed.

// onnxruntime-node and onnxruntime-web

export interface OrtTensor {
  readonly data: ArrayLike<number>
  dispose(): void
}
export interface InferenceSession {
  run(feeds: Readonly<Record<string, OrtTensor>>): Promise<Record<string, OrtTensor>>
  release(): Promise<void>
}
export interface Ort {
  readonly env: {
    readonly versions: { readonly common: string }
    readonly wasm: { wasmPaths?: string; numThreads?: number }
  }
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<InferenceSession> }
  readonly Tensor: new (type: string, data: ArrayBufferView, shape: readonly number[]) => OrtTensor
}

// @tensorflow/tfjs-core

export interface TfTensor {
  readonly shape: readonly number[]
  data(): Promise<ArrayLike<number>>
  dispose(): void
}
export interface TfWebGpuBackend {
  readonly queue: GPUQueue
  endComputePassEncoder(): void
  submitQueue(): void
}
type TfUnary = (x: TfTensor) => TfTensor
type TfBinary = (x: TfTensor, z: TfTensor) => TfTensor
type TfReduction = (x: TfTensor, axis?: number, keepDims?: boolean) => TfTensor
interface TfBasic {
  readonly version_core: string
  setBackend(name: string): Promise<boolean>
  ready(): Promise<void>
  backend(): unknown
  tidy(work: () => TfTensor): TfTensor
  grad(f: (x: TfTensor) => TfTensor): (x: TfTensor) => TfTensor
  tensor(data: ArrayBufferView, shape: readonly number[], dtype: string): TfTensor
  scalar(value: number): TfTensor
  matMul(a: TfTensor, b: TfTensor, transposeA?: boolean, transposeB?: boolean): TfTensor
  transpose(x: TfTensor, order: readonly number[]): TfTensor
  reshape(x: TfTensor, shape: readonly number[]): TfTensor
  tile(x: TfTensor, repeats: readonly number[]): TfTensor
  split(x: TfTensor, parts: number, axis: number): TfTensor[]
  concat(parts: readonly TfTensor[], axis: number): TfTensor
  oneHot(ids: TfTensor, depth: number): TfTensor
}
export type Tf = TfBasic &
  Readonly<Record<'mean' | 'sum' | 'logSumExp', TfReduction>> &
  Readonly<Record<'add' | 'sub' | 'mul' | 'gather', TfBinary>> &
  Readonly<Record<'softmax' | 'sigmoid' | 'tanh' | 'square' | 'rsqrt', TfUnary>>

// @jax-js/jax

export interface JaxArray {
  readonly shape: readonly number[]
  /** The same array, counted once more. */
  readonly ref: JaxArray
  data(): Promise<ArrayLike<number>>
  dispose(): void
}
type JaxUnary = (x: JaxArray, axis?: number) => JaxArray
type JaxBinary = (x: JaxArray, z: JaxArray | number, axis?: number) => JaxArray
type JaxCompiled = ((...arrays: JaxArray[]) => JaxArray) & { dispose(): void }
interface JaxNumpy {
  readonly int32: unknown
  array(data: ArrayBufferView, options: { shape: readonly number[]; dtype?: unknown }): JaxArray
  mean(x: JaxArray, axis: number, options: { keepdims: boolean }): JaxArray
  reshape(x: JaxArray, shape: readonly number[]): JaxArray
  split(x: JaxArray, parts: number, axis: number): JaxArray[]
  concatenate(parts: readonly JaxArray[], axis: number): JaxArray
}
interface JaxNn {
  dotProductAttention(q: JaxArray, k: JaxArray, v: JaxArray, options?: { isCausal: boolean }): JaxArray
  gelu(x: JaxArray, options: { approximate: boolean }): JaxArray
}
export interface Jax {
  init(device: 'webgpu'): Promise<string[]>
  defaultDevice(device: 'webgpu'): void
  jit(f: (...arrays: JaxArray[]) => JaxArray): JaxCompiled
  grad(f: (...arrays: JaxArray[]) => JaxArray): (...arrays: JaxArray[]) => JaxArray
  blockUntilReady(x: JaxArray): Promise<JaxArray>
  readonly numpy: JaxNumpy &
    Readonly<Record<'square' | 'sqrt' | 'matrixTranspose' | 'sum', JaxUnary>> &
    Readonly<Record<'add' | 'subtract' | 'multiply' | 'divide' | 'matmul' | 'take' | 'takeAlongAxis', JaxBinary>>
  readonly nn: JaxNn & Readonly<Record<'softmax' | 'silu' | 'logsumexp', JaxUnary>>
}

// esbuild, which makes the page of the browser's bench

export interface Esbuild {
  build(options: object): Promise<{ outputFiles: { text: string }[] }>
}
