// Networks made only of kernels, and how their weights are read, brought and converted.
export { type ConvertOptions, convertModel } from './convert.ts'
export { Decoder } from './decoder.ts'
export { describeModel, groupTensors, type ModelFacts } from './describe.ts'
export { readModelFolder } from './folder.ts'
export { type OpenModel, openModel } from './open-model.ts'
export { type PullOptions, pullModel } from './pull.ts'
