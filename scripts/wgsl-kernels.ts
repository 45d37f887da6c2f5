// Links every wgsl/*.wgsl with wesl and reads its interface with wgsl_reflect: per entry point the source, the storage
// types, the bindings with access and element type, the parameters with offsets, the constants.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { link } from 'wesl'
import { type TypeInfo, type VariableInfo, WgslReflect } from 'wgsl_reflect/wgsl_reflect.module.js'
import type { FloatType } from '../src/core/dtype.ts'
import { withTypes } from '../src/runtime/entry.ts'

const root = join(import.meta.dirname, '..')
const folder = join(root, 'wgsl')

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

/** What is linked: storage types (wgsl/lib/elem.wgsl), single elements or quads (wgsl/lib/part.wgsl). */
interface Form {
  readonly elem: FloatType
  readonly stored: FloatType
  readonly quads: boolean
}

async function linked(sources: Record<string, string>, name: string, form: Form): Promise<string> {
  const conditions = { f16: form.elem === 'f16', half_weights: form.stored === 'f16', quads: form.quads }
  const result = await link({ weslSrc: sources, rootModuleName: name, conditions })
  // Comments, indents and blank lines are for the files in wgsl/; whoever downloads the kernels is spared them.
  const text = result.dest
    .replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean)
    .join('\n')
  return text.includes('@builtin(subgroup_invocation_id)') ? `enable subgroups;\n${text}` : text
}

/** The scalar that an array, vector or atomic is made of, and how many of them one element has. */
function scalarOf(type: TypeInfo): { scalar: string; width: number } {
  const width = Number(/^vec(\d)/.exec(type.name)?.[1] ?? 1)
  const suffix = /^vec\d([fuih])$/.exec(type.name)?.[1]
  if (suffix) return { scalar: { f: 'f32', u: 'u32', i: 'i32', h: 'f16' }[suffix]!, width }
  const inner = 'format' in type && type.format ? scalarOf(type.format as TypeInfo) : undefined
  return inner ? { scalar: inner.scalar, width: width * inner.width } : { scalar: type.name, width }
}

/** @param resources the binding in f32 alone, under weights in f16, and in f16 alone. */
function describeBinding(resources: readonly VariableInfo[]) {
  const [full, halfWeights, half] = resources.map((resource) => scalarOf(resource.type).scalar)
  const [{ binding, access, type }] = resources
  return {
    binding,
    access: access === 'read_write' ? 'read_write' : 'read',
    type: full === half ? full : full === halfWeights ? 'elem' : 'stored',
    width: scalarOf(type).width,
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
async function describeKernel(sources: Record<string, string>, file: string, backward: boolean): Promise<string> {
  const name = file.replace(/\.wgsl$/, '')
  const [single, inQuads] = await Promise.all(
    [false, true].map((quads) => linked(sources, name, { elem: 'f32', stored: 'f32', quads })),
  )
  const forms = inQuads === single ? [false] : [false, true]
  return (await Promise.all(forms.map((quads) => describeForm(sources, file, quads, backward)))).join('\n\n')
}

async function describeForm(
  sources: Record<string, string>,
  file: string,
  quads: boolean,
  backward: boolean,
): Promise<string> {
  const module = file.replace(/\.wgsl$/, '')
  const name = quads ? `${module}-quads` : module
  const types = [['f32', 'f32'] as const, ['f32', 'f16'] as const, ['f16', 'f16'] as const]
  const texts = await Promise.all(types.map(([elem, stored]) => linked(sources, module, { elem, stored, quads })))
  const [text] = texts
  // The runtime holds one text and writes the storage types in.
  for (const [i, [elem, stored]] of types.entries())
    if (withTypes(text, elem, stored).replace('enable f16;\n', '') !== texts[i])
      throw new SyntaxError(`it differs in f16 by more than the aliases of wgsl/lib/elem.wgsl`)
  const reflections = texts.map((each) => new WgslReflect(each))
  const constants = Object.fromEntries(reflections[0].overrides.map((item) => [item.name, item.type?.name ?? 'u32']))
  // Matrix units take f16 factors only.
  const units = text.includes(standIns[0][1])
  const enabled = units ? `enable chromium_experimental_subgroup_matrix;\nenable subgroups;\n${text}` : text
  const wanted = reflections[0].entry.compute.filter((entry) => backward || !isBackward(entry.name))
  const names = wanted.map(({ name }) => name)
  const source = backward ? enabled : reachable(enabled, names)
  const sourceName = `${camel(name)}Source`
  const entries = wanted.map((entry) => {
    const resources = entry.resources as VariableInfo[]
    for (const resource of resources)
      if (resource.group !== 0) throw new SyntaxError(`${resource.name} must be in @group(0)`)
    const uniforms = resources.filter((resource) => resource.resourceType === storageClass.uniform)
    if (uniforms.length > 1) throw new SyntaxError(`${entry.name} reaches ${uniforms.length} uniforms`)
    const inForms = (resource: VariableInfo) =>
      reflections.map(({ entry: { compute } }) => {
        const all = compute.find((other) => other.name === entry.name)!.resources as VariableInfo[]
        return all.find((other) => other.name === resource.name)!
      })
    const bindings = resources
      .filter((resource) => resource.resourceType === storageClass.storage)
      .sort((a, b) => a.binding - b.binding)
      .map((resource) => [resource.name, describeBinding(inForms(resource))])
    const body = {
      kernel: name,
      entry: entry.name,
      types: units ? ['f16'] : texts[2] === text ? ['f32'] : ['f32', 'f16'],
      bindings: Object.fromEntries(bindings),
      params: describeParams(uniforms[0]),
      constants,
    }
    return `  ${camel(entry.name)}: { source: ${sourceName}, ...${JSON.stringify(body)} as const },`
  })
  return [
    `const ${sourceName} = ${JSON.stringify(withoutStandIns(source))}`,
    `/** Entry points of wgsl/${file}${quads ? ', in quads' : ''}. */`,
    `export const ${camel(name)} = {`,
    ...entries,
    '}',
  ].join('\n')
}

/** What only gradients need has `backward` in its name. */
const isBackward = (name: string) => /backward/i.test(name)

/** What `entries` reach of a module, in its order. */
function reachable(text: string, entries: readonly string[]): string {
  const declarations = declarationsOf(text)
  const named = new Map<string, string[]>()
  for (const each of declarations) {
    const name = /\b(?:fn|struct|alias|const|override|var(?:<[^>]*>)?)\s+(\w+)/.exec(each)?.[1]
    if (name) named.set(name, [...(named.get(name) ?? []), each])
  }
  const kept = new Set(declarations.filter((each) => each.startsWith('enable')))
  const visit = (name: string) => {
    for (const each of named.get(name) ?? []) {
      if (kept.has(each)) continue
      kept.add(each)
      for (const word of each.match(/\b[a-zA-Z_]\w*/g) ?? []) visit(word)
    }
  }
  for (const entry of entries) visit(entry)
  return declarations.filter((each) => kept.has(each)).join('\n')
}

/** The declarations of a module: each ends at a semicolon or a closing brace that stands in no other. */
function declarationsOf(text: string): string[] {
  const found: string[] = []
  let depth = 0
  let begin = 0
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '{') depth++
    if (text[i] === '}') depth--
    if (depth > 0 || (text[i] !== ';' && text[i] !== '}')) continue
    found.push(text.slice(begin, i + 1).trim())
    begin = i + 1
  }
  return found
}

/**
 * The module src/kernels/wgsl.gen.ts.
 * @param backward whether it has the entry points of gradients, and what they alone reach.
 */
export async function kernelsModule({ backward }: { readonly backward: boolean }): Promise<string> {
  const sources = readSources()
  const parts: string[] = []
  for (const file of Object.keys(sources).filter((name) => !name.includes('/'))) {
    try {
      parts.push(await describeKernel(sources, file, backward))
    } catch (error) {
      throw new SyntaxError(`Cannot embed wgsl/${file}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  return [
    '// Written by scripts/embed-wgsl.ts from wgsl/*.wgsl. Do not edit: change the shader and run `npm run generate`.',
    ...parts,
    '',
  ].join('\n\n')
}
