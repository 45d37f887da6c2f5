// Writes docs/profile.schema.json, the JSON Schema of a capability's profile.json, from the schema that checks it.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { profileJsonSchema } from '../src/profile/schema.ts'

const path = join(import.meta.dirname, '../docs/profile.schema.json')
writeFileSync(path, `${JSON.stringify(profileJsonSchema(), null, 2)}\n`)
