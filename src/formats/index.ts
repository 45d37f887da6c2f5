// Bytes to named tensors and back.
export { quantizeInt8 } from './int8.ts'
export { type DecoderConfig, parseModelConfig } from './model-config.ts'
export { quantizeNf4 } from './nf4.ts'
export { readPeft, writePeft } from './peft.ts'
export { parseSafetensors, writeSafetensors } from './safetensors.ts'
export { loadTokenizer, type Tokenizer } from './tokenizer.ts'
