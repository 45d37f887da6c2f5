// The GPU runtime.
export { Gpu } from './gpu.ts'
export { Scope } from './scope.ts'
export { type Gradients, Step } from './step.ts'
export { Tensor } from './tensor.ts'
