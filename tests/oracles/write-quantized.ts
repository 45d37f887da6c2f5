// Quantises a folder as `nexus convert` does, for make-nf4.py: node write-quantized.ts <folder> <new folder> <kind>
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ConversionType, convertModel } from '../../src/models/convert.ts'
import { tokenizer } from '../models/family-files.ts'

const [from, to, kind] = process.argv.slice(2)
writeFileSync(join(from, 'tokenizer.json'), JSON.stringify(tokenizer))
await convertModel(from, to, { to: kind as ConversionType, rest: 'f32' })
