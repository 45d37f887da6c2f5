// Links every wgsl/*.wgsl with wesl, reads its interface with wgsl_reflect, and writes src/kernels/wgsl.gen.ts:
// per entry point the source, the bindings with access and element type, the parameters with offsets, the constants.
// Run by `npm run generate`; `--check` fails when the file on disk is stale.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { link } from 'wesl'
import { type TypeInfo, type VariableInfo, WgslReflect } from 'wgsl_reflect/wgsl_reflect.module.js'

const root = join(import.meta.dirname, '..')
const folder = join(root, 'wgsl')
const target = join(root, 'src/kernels/wgsl.gen.ts')

const storageClass = { uniform: 0, storage: 1 }

function readSources(): Record<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.wgsl'))
  return Object.fromEntries(names.sort().map((name) => [name, withStandIns(readFileSync(join(folder, name), 'utf8'))]))
}

// Neither wesl nor wgsl_reflect knows matrix units yet: they see stand-ins, which are put right in the linked text.
const standIns: readonly (readonly [real: string, standIn: string])[] = [
  ['subgroup_matrix_left<elem, 16, 16>', 'array<elem, 9001>'],
  ['subgroup_matrix_right<elem, 16, 16>', 'array<elem, 9002>'],
  ['subgroup_matrix_result<f32, 16, 16>', 'array<f32, 9003>'],
  ['subgroupMatrixLoad<Left, row_major>(', 'subgroupShuffle(9011, '],
  ['subgroupMatrixLoad<Left, col_major>(', 'subgroupShuffle(9012, '],
  ['subgroupMatrixLoad<Right, row_major>(', 'subgroupShuffle(9013, '],
  ['subgroupMatrixLoad<Right, col_major>(', 'subgroupShuffle(9014, '],
  ['subgroupMatrixMultiplyAccumulate(', 'subgroupShuffle(9015, '],
  ['subgroupMatrixStore<row_major>(', 'subgroupShuffle(9016, '],
]
const withStandIns = (text: string) => standIns.reduce((all, [real, standIn]) => all.replaceAll(real, standIn), text)
const withoutStandIns = (text: string) => standIns.reduce((all, [real, standIn]) => all.replaceAll(standIn, real), text)

/** What is linked: one storage type, single elements or quads (wgsl/lib/part.wgsl). */
interface Form {
  readonly f16: boolean
  readonly quads: boolean
}

async function linked(sources: Record<string, string>, name: string, { f16, quads }: Form): Promise<string> {
  const result = await link({ weslSrc: sources, rootModuleName: name, conditions: { f16, quads } })
  // Comments, indents and blank lines are for the files in wgsl/; whoever downloads the kernels is spared them.
  const short = result.dest
    .replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean)
    .join('\n')
  const lends = short.includes('@builtin(subgroup_invocation_id)')
  const text = lends ? `enable subgroups;\n${short}` : short
  return f16 && /\bf16\b/.test(text) ? `enable f16;\n${text}` : text
}

/** The scalar that an array, vector or atomic is made of, and how many of them one element has. */
function scalarOf(type: TypeInfo): { scalar: string; width: number } {
  const width = Number(/^vec(\d)/.exec(type.name)?.[1] ?? 1)
  const suffix = /^vec\d([fuih])$/.exec(type.name)?.[1]
  if (suffix) return { scalar: { f: 'f32', u: 'u32', i: 'i32', h: 'f16' }[suffix]!, width }
  const inner = 'format' in type && type.format ? scalarOf(type.format as TypeInfo) : undefined
  return inner ? { scalar: inner.scalar, width: width * inner.width } : { scalar: type.name, width }
}

function describeBinding(resource: VariableInfo, f16Twin: VariableInfo | undefined) {
  const { scalar, width } = scalarOf(resource.type)
  const inHalf = f16Twin ? scalarOf(f16Twin.type).scalar : scalar
  return {
    binding: resource.binding,
    access: resource.access === 'read_write' ? 'read_write' : 'read',
    type: scalar === inHalf ? scalar : 'elem',
    width,
  }
}

function describeParams(resource: VariableInfo | undefined) {
  if (!resource) return null
  const { type } = resource
  if (!('members' in type)) throw new SyntaxError(`${resource.name} must be a struct`)
  const members = (type.members as { name: string; offset: number; type: TypeInfo }[]).map((member) => [
    member.name,
    { offset: member.offset, type: member.type.name },
  ])
  return { binding: resource.binding, bytes: Math.ceil(type.size / 16) * 16, members: Object.fromEntries(members) }
}

function camel(name: string): string {
  return name.replace(/[-_](\w)/g, (_, letter: string) => letter.toUpperCase())
}

/** A kernel in single elements, and in quads as well where that makes a difference. */
async function describeKernel(sources: Record<string, string>, file: string): Promise<string> {
  const name = file.replace(/\.wgsl$/, '')
  const single = await linked(sources, name, { f16: false, quads: false })
  const hasQuads = (await linked(sources, name, { f16: false, quads: true })) !== single
  const forms = hasQuads ? [false, true] : [false]
  return (await Promise.all(forms.map((quads) => describeForm(sources, file, quads)))).join('\n\n')
}

async function describeForm(sources: Record<string, string>, file: string, quads: boolean): Promise<string> {
  const module = file.replace(/\.wgsl$/, '')
  const name = quads ? `${module}-quads` : module
  const f32 = await linked(sources, module, { f16: false, quads })
  const f16 = await linked(sources, module, { f16: true, quads })
  const hasHalf = f16 !== f32
  const reflection = new WgslReflect(f32)
  const halfReflection = new WgslReflect(f16)
  const constants = Object.fromEntries(reflection.overrides.map((item) => [item.name, item.type?.name ?? 'u32']))
  const sourceName = `${camel(name)}Source`
  const entries = reflection.entry.compute.map((entry) => {
    const twin = halfReflection.entry.compute.find((other) => other.name === entry.name)!
    const resources = entry.resources as VariableInfo[]
    for (const resource of resources)
      if (resource.group !== 0) throw new SyntaxError(`${file}: ${resource.name} must be in @group(0)`)
    const uniforms = resources.filter((resource) => resource.resourceType === storageClass.uniform)
    if (uniforms.length > 1) throw new SyntaxError(`${file}: ${entry.name} reaches ${uniforms.length} uniforms`)
    const bindings = resources
      .filter((resource) => resource.resourceType === storageClass.storage)
      .sort((a, b) => a.binding - b.binding)
      .map((resource) => {
        const half = (twin.resources as VariableInfo[]).find((other) => other.name === resource.name)
        return [resource.name, describeBinding(resource, half)]
      })
    const body = {
      kernel: name,
      entry: entry.name,
      bindings: Object.fromEntries(bindings),
      params: describeParams(uniforms[0]),
      constants,
    }
    return `  ${camel(entry.name)}: { source: ${sourceName}, ...${JSON.stringify(body)} as const },`
  })
  // Matrix units take f16 factors only.
  const units = f32.includes(standIns[0][1])
  const enabled = units ? `enable subgroups;\nenable chromium_experimental_subgroup_matrix;\n${f16}` : f16
  const source = { ...(units ? {} : { f32 }), ...(hasHalf ? { f16: withoutStandIns(enabled) } : {}) }
  return [
    `const ${sourceName}: KernelSource = ${JSON.stringify(source, null, 2)}`,
    `/** Entry points of wgsl/${file}${quads ? ', in quads' : ''}. */`,
    `export const ${camel(name)} = {`,
    ...entries,
    '}',
  ].join('\n')
}

const sources = readSources()
const kernels = Object.keys(sources).filter((name) => !name.includes('/'))
const parts: string[] = []
for (const file of kernels) {
  try {
    parts.push(await describeKernel(sources, file))
  } catch (error) {
    throw new SyntaxError(`Cannot embed wgsl/${file}: ${error instanceof Error ? error.message : String(error)}`)
  }
}
const text = [
  '// Written by scripts/embed-wgsl.ts from wgsl/*.wgsl. Do not edit: change the shader and run `npm run generate`.',
  "import type { KernelSource } from '../runtime/entry.ts'",
  '',
  parts.join('\n\n'),
  '',
].join('\n')

if (process.argv.includes('--check')) {
  if (readFileSync(target, 'utf8') !== text) throw new Error('wgsl.gen.ts is stale: run `npm run generate`')
} else {
  writeFileSync(target, text)
  console.error(`wgsl.gen.ts: ${kernels.length} kernels`)
}
