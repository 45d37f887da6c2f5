// Builds the page twice out of web/: dist/page, which a bundle carries, and dist/playground, which trains as well. Run by
// `npm run page`.
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build, type Plugin } from 'esbuild'
import { inferenceOnly } from './inference-only.ts'

const root = join(import.meta.dirname, '..')
const web = join(root, 'web')

/** A page is index.html, its script and the script of its worker. */
const pages = {
  page: { page: join(web, 'page.ts'), worker: join(root, 'src/browser/worker.ts') },
  playground: { page: join(web, 'playground.ts'), worker: join(web, 'training-worker.ts') },
}

/** index.html with its style sheet, and a policy that holds whoever serves it. */
function html(): string {
  const style = readFileSync(join(web, 'style.css'), 'utf8')
    .replace(/\/\*.*?\*\//gs, '')
    .replace(/\s*\n\s*/g, ' ')
    .trim()
  const hash = createHash('sha256').update(style).digest('base64')
  // Nothing comes from another host, no text becomes a script, and the one style sheet is the page's own.
  const policy = [
    ...["default-src 'none'", "script-src 'self'", "worker-src 'self'", "connect-src 'self'", "img-src 'self' data:"],
    ...[`style-src 'sha256-${hash}'`, "base-uri 'none'", "form-action 'none'"],
  ].join('; ')
  return readFileSync(join(web, 'index.html'), 'utf8')
    .replace('{{style}}', () => style)
    .replace('{{policy}}', () => policy)
}

/** Tells esbuild what a browser has in the place of `#host`: the package's imports lead into dist when it is installed. */
const host: Plugin = {
  name: 'host',
  setup(build) {
    build.onResolve({ filter: /^#host$/ }, () => ({ path: join(root, 'src/browser/host.ts') }))
  },
}

/**
 * Builds both pages into folders of `out`.
 * @returns bytes of each script, by its path there.
 */
export async function buildPages(out: string): Promise<Record<string, number>> {
  const sizes: Record<string, number> = {}
  for (const [name, entryPoints] of Object.entries(pages)) {
    const folder = join(out, name)
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(join(folder, 'src'), { recursive: true })
    const { outputFiles } = await build({
      ...{ entryPoints, outdir: join(folder, 'src'), bundle: true, minify: true, write: false },
      ...{ format: 'esm', target: 'es2022', platform: 'browser', legalComments: 'none', logLevel: 'warning' },
      plugins: name === 'page' ? [host, inferenceOnly] : [host],
    })
    for (const { path, contents } of outputFiles) {
      writeFileSync(path, contents)
      sizes[path.slice(out.length + 1)] = contents.length
    }
    writeFileSync(join(folder, 'index.html'), html())
  }
  return sizes
}

if (import.meta.main) {
  const sizes = await buildPages(join(root, 'dist'))
  for (const [path, bytes] of Object.entries(sizes)) console.error(`dist/${path} ${(bytes / 1000).toFixed(0)} kB`)
}
