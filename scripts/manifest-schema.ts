// Writes docs/manifest.schema.json, the JSON Schema of a bundle's manifest, from the schema that checks it.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { manifestJsonSchema } from '../src/bundle/manifest.ts'

const path = join(import.meta.dirname, '../docs/manifest.schema.json')
writeFileSync(path, `${JSON.stringify(manifestJsonSchema(), null, 2)}\n`)
