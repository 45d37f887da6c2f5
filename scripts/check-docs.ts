// Checks that every export under src/ has a docstring, and that links and commands in the Markdown files exist.
// Run by `npm run docs`.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

const root = join(import.meta.dirname, '..')
const faults: string[] = []

const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter(
  (name) => name.endsWith('.ts') && !name.endsWith('.gen.ts') && !name.endsWith('.d.ts'),
)
for (const name of sources) {
  const lines = readFileSync(join(root, 'src', name), 'utf8').split('\n')
  for (const [i, line] of lines.entries()) {
    const found =
      /^export (?:async )?(?:default )?(?:abstract )?(function\*?|class|const|interface|type|let) (\w+)/.exec(line)
    if (found && lines[i - 1]?.trim() !== '*/' && !/^\/\*\*.*\*\/$/.test(lines[i - 1]?.trim() ?? ''))
      faults.push(`src/${name}:${i + 1}: ${found[2]} has no docstring`)
  }
}

const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
const commands = readdirSync(join(root, 'src/cli')).flatMap((name) =>
  [...readFileSync(join(root, 'src/cli', name), 'utf8').matchAll(/\.command\('([\w-]+)/g)].map(
    ([, command]) => command,
  ),
)
const folders = [
  '.',
  'docs',
  'tools/software-gpu',
  'models/tiny-teacher',
  'examples/train-teacher',
  'examples/demo',
  'bench',
]
for (const folder of folders) {
  const pages = existsSync(join(root, folder))
    ? readdirSync(join(root, folder)).filter((name) => name.endsWith('.md'))
    : []
  for (const page of pages.map((name) => join(folder, name))) {
    const text = readFileSync(join(root, page), 'utf8')
    for (const [, link] of text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g))
      if (!existsSync(join(root, dirname(page), link))) faults.push(`${page}: the link ${link} leads nowhere`)
    for (const [, script] of text.matchAll(/npm run ([\w:-]+)/g))
      if (!scripts[script]) faults.push(`${page}: there is no npm run ${script}`)
    for (const [, command] of text.matchAll(/npx nexus ([a-z]+)/g))
      if (!commands.includes(command)) faults.push(`${page}: there is no nexus ${command}`)
  }
}

for (const fault of faults) console.error(fault)
console.error(faults.length === 0 ? `docs: ${sources.length} files documented` : `docs: ${faults.length} faults`)
process.exit(faults.length === 0 ? 0 : 1)
