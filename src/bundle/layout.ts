/** What a bundle says of itself. */
export const manifestPath = 'manifest.json'

/** The signature over the manifest and all files; the only file that the manifest does not list, beside itself. */
export const signaturePath = 'manifest.sig.json'

/** Name of a bundle's folder, and of the one folder inside an archive. */
export const bundleFolder = 'nexus_bundle_v1'

/** Pattern of a capability's name, and so of its adapter's file. */
export const capabilityName = /^[a-z0-9][a-z0-9_-]*$/

/** Paths that a bundle may list; `*` stands for one plain name, `**` for any folders and a plain name. */
export const allowedPaths = [
  'README.md',
  'LICENSE',
  'verify_report.json',
  'backbone/backbone.safetensors',
  'backbone/config.json',
  'adapters/*.safetensors',
  'router/router.safetensors',
  'tokenizer/tokenizer.json',
  'config/runtime.yaml',
  'index.html',
  'bin/**.js',
  'bin/**.mjs',
  'src/**.js',
  'src/**.mjs',
  'src/**.wgsl',
  'src/**.wasm',
] as const

/** Files without which a bundle does not run. */
export const requiredPaths = [
  'verify_report.json',
  'backbone/backbone.safetensors',
  'backbone/config.json',
  'router/router.safetensors',
  'tokenizer/tokenizer.json',
  'config/runtime.yaml',
] as const

const starred: Record<string, string> = {
  '.': '\\.',
  '*': '[a-z0-9][a-z0-9_-]*',
  '**': '(?:[a-z0-9][a-z0-9_-]*/)*[a-z0-9][a-z0-9_.-]*',
}
const patterns = allowedPaths.map(
  (allowed) => new RegExp(`^${allowed.replace(/\*\*|\*|\./g, (sign) => starred[sign])}$`),
)

/** Whether `path` is one that a bundle may list. */
export function isAllowed(path: string): boolean {
  return patterns.some((pattern) => pattern.test(path))
}

/** What a file holds, by its path: what reads it, and what it may be scanned for. */
export type FileKind = 'weights' | 'config' | 'code' | 'text'

/** The kind of an allowed path. */
export function kindOf(path: string): FileKind {
  if (path.endsWith('.safetensors')) return 'weights'
  if (path === 'index.html' || path.startsWith('bin/') || path.startsWith('src/')) return 'code'
  return path === 'README.md' || path === 'LICENSE' || path === 'verify_report.json' ? 'text' : 'config'
}
