// Before packing: writes a package.json without what only a clone needs (scripts, development and optional
// dependencies), whose paths lead to what was built and not to the sources. After packing, `--restore` brings the clone's own back. Run by `prepack` and `postpack`.
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const path = join(import.meta.dirname, '../package.json')
const kept = `${path}.kept`

if (process.argv.includes('--restore')) {
  if (existsSync(kept)) renameSync(kept, path)
} else {
  // A pack that was killed leaves the kept file: it is the true one.
  if (existsSync(kept)) renameSync(kept, path)
  const text = readFileSync(path, 'utf8')
  const built = text.replaceAll(/"\.\/src\/([^"]+)\.ts"/g, '"./dist/$1.js"')
  const { devDependencies: _, optionalDependencies: __, scripts: ___, ...published } = JSON.parse(built)
  writeFileSync(kept, text)
  writeFileSync(path, `${JSON.stringify(published, null, 2)}\n`)
}
