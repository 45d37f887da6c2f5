import { spawn } from 'node:child_process'
import { basename, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { openBundle } from '#host'
import { BundleError, UsageError } from '../core/errors.ts'
import { exists } from '../host/files.ts'
import { interruptSignal } from '../host/interrupt.ts'
import { number } from './arguments.ts'
import { makeOutput } from './output.ts'
import { servePlayground } from './play-server.ts'

interface Options {
  readonly host: string
  readonly port: number
  readonly open?: boolean
  readonly json?: boolean
}

/** Adds `nexus play`. */
export function registerPlay(program: Command): void {
  program
    .command('play')
    .description('opens the playground in a browser: chat with a bundle, compare its adapters, train one')
    .argument('[bundle]', 'folder or .zip of the bundle; the page asks for one unless told')
    .option('--host <address>', 'address to listen at; others than this machine need https in front', '127.0.0.1')
    .option('--port <n>', 'port to listen at; 0 takes a free one', number, 4173)
    .option('--open', 'opens the browser too')
    .option('--json', 'one JSON object a line')
    .action(play)
}

async function play(path: string | undefined, { host, port, open, json = false }: Options): Promise<void> {
  const output = makeOutput(json)
  const page = fileURLToPath(new URL('../../dist/playground/', import.meta.url))
  if (!exists(page)) throw new UsageError('The playground is not built. In a clone, run: npm run page')
  await using bundle = path === undefined ? undefined : await openBundle(path)
  if (bundle && !(await bundle.files.list()).includes('manifest.json'))
    throw new BundleError(`Cannot open ${path}: it has no manifest.json, so it is no bundle`)
  const signal = interruptSignal(output.say)
  const server = await servePlayground({
    page,
    host,
    port,
    ...(bundle && { bundle: bundle.files, name: basename(resolve(path!)) }),
  })
  output.print(server.url)
  output.say('Open this address in Chrome, Edge, Safari 26 or Firefox 141 and later. Ctrl-C ends it.')
  output.emit('listening', { url: server.url })
  if (open) openBrowser(server.url)
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
  await server.close()
}

/** Shows an address in the person's browser; where that is not possible, it was printed. */
function openBrowser(url: string): void {
  const [command, ...args] =
    process.platform === 'darwin' ? ['open'] : process.platform === 'win32' ? ['cmd', '/c', 'start', ''] : ['xdg-open']
  const child = spawn(command, [...args, url], { stdio: 'ignore', detached: true })
  child.on('error', () => {})
  child.unref()
}
