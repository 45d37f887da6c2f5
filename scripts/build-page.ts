// Builds the page twice out of web/: dist/page, which a bundle carries, and dist/playground, which trains as well. Run by
// `npm run page`.
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build, type Plugin } from 'esbuild'

const root = join(import.meta.dirname, '..')
const web = join(root, 'web')

/** A page is index.html, its script and the script of its worker. */
const pages = {
  page: { page: join(web, 'page.ts'), worker: join(root, 'src/browser/worker.ts') },
  playground: { page: join(web, 'playground.ts'), worker: join(web, 'training-worker.ts') },
}

const style = readFileSync(join(web, 'style.css'), 'utf8')
  .replace(/\/\*.*?\*\//gs, '')
  .replace(/\s*\n\s*/g, ' ')
  .trim()
const hash = createHash('sha256').update(style).digest('base64')
/** Nothing comes from another host, no text becomes a script, and the one style sheet is the page's own. */
const policy = [
  ...["default-src 'none'", "script-src 'self'", "worker-src 'self'", "connect-src 'self'", "img-src 'self' data:"],
  ...[`style-src 'sha256-${hash}'`, "base-uri 'none'", "form-action 'none'"],
].join('; ')
const html = readFileSync(join(web, 'index.html'), 'utf8')
  .replace('{{style}}', () => style)
  .replace('{{policy}}', () => policy)

/** Tells esbuild what a browser has in the place of `#host`: the package's imports lead into dist when it is installed. */
const host: Plugin = {
  name: 'host',
  setup(build) {
    build.onResolve({ filter: /^#host$/ }, () => ({ path: join(root, 'src/browser/host.ts') }))
  },
}

for (const [name, entryPoints] of Object.entries(pages)) {
  const out = join(root, 'dist', name)
  rmSync(out, { recursive: true, force: true })
  mkdirSync(out, { recursive: true })
  const { metafile } = await build({
    ...{ entryPoints, outdir: join(out, 'src'), bundle: true, minify: true, metafile: true },
    ...{ format: 'esm', target: 'es2022', platform: 'browser', legalComments: 'none', logLevel: 'warning' },
    plugins: [host],
  })
  writeFileSync(join(out, 'index.html'), html)
  const sizes = Object.entries(metafile.outputs).map(([path, { bytes }]) => `${path} ${(bytes / 1000).toFixed(0)} kB`)
  console.error(`${name}: ${sizes.join(', ')}`)
}
