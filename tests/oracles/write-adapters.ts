// Writes adapters of tiny models as Nexus does, for make-adapters.py: node write-adapters.ts <name of a golden family>...
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeGgufLora } from '../../src/formats/gguf-lora.ts'
import { parseHuggingFaceConfig } from '../../src/formats/hugging-face-config.ts'
import { writePeft } from '../../src/formats/peft.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { tinyAdapter } from '../models/tiny-adapters.ts'

const golden = join(import.meta.dirname, 'golden')
for (const name of process.argv.slice(2)) {
  const { metadata } = parseSafetensors(new Uint8Array(readFileSync(join(golden, `families/${name}.safetensors`))))
  const config = parseHuggingFaceConfig(JSON.parse(metadata.config))
  const modules = tinyAdapter(config)
  for (const ranks of ['native', 'uniform'] as const) {
    const folder = join(golden, `adapters/${name}-${ranks}`)
    mkdirSync(folder, { recursive: true })
    const written = writePeft(modules, { ranks, layers: config.layers })
    writeFileSync(join(folder, 'adapter_model.safetensors'), writeSafetensors(written.tensors, { format: 'pt' }))
    writeFileSync(join(folder, 'adapter_config.json'), written.config)
  }
  writeFileSync(join(golden, `adapters/${name}.gguf`), writeGgufLora(modules, config))
}
