import { statfsSync } from 'node:fs'
import { freemem } from 'node:os'
import type { Command } from 'commander'
import { messageOf } from '../core/errors.ts'
import { installHint } from '../host/apt.ts'
import { adapterName, isSoftware, listAdapters, openGpuRoot } from '../host/gpu-root.ts'
import { scale } from '../kernels/elementwise.ts'
import { Gpu } from '../runtime/gpu.ts'
import { byteSize, makeOutput } from './output.ts'

/** Adds `nexus doctor`. */
export function registerDoctor(program: Command): void {
  program
    .command('doctor')
    .description('says which GPUs there are, what they can do, which one Nexus takes, and what to install')
    .option('--json', 'one JSON object')
    .option('--adapter <name>', 'auto, software, or a part of an adapter’s name')
    .action(doctor)
}

async function doctor({ json = false, adapter: wanted }: { json?: boolean; adapter?: string }): Promise<void> {
  const output = makeOutput(json)
  const disk = statfsSync('.')
  const host = { node: process.versions.node, freeMemory: freemem(), freeDisk: disk.bavail * disk.bsize }
  output.print(
    `Node ${host.node}, ${byteSize(host.freeMemory)} of memory free, ${byteSize(host.freeDisk)} of disk free`,
  )
  let root: Awaited<ReturnType<typeof openGpuRoot>>
  try {
    root = await openGpuRoot({ adapter: wanted, install: false, say: output.say })
  } catch (error) {
    output.print(`\nNo GPU can be used: ${messageOf(error)}`)
    output.print('Without a GPU in the machine, a GPU in software does all that Nexus does, more slowly.')
    output.emit('doctor', { host, adapters: [], picked: null, works: false, advice: installHint })
    process.exitCode = 1
    return
  }
  const adapters = (await listAdapters(root.gpu)).map((adapter) => describe(adapter))
  for (const facts of adapters) {
    output.print(`\n${facts.name}${facts.software ? ' (in software)' : ''}`)
    for (const line of facts.lines) output.print(`  ${line}`)
  }
  using gpu = await Gpu.open(root)
  const works = await doublesNumbers(gpu)
  const why = root.software
    ? 'it is the only one: the machine shows no GPU of its own'
    : 'a GPU in hardware comes first'
  output.print(`\nNexus picks ${root.name}: ${(wanted ?? process.env.NEXUS_ADAPTER) ? 'you asked for it' : why}.`)
  output.print(
    works
      ? 'A kernel ran on it and its result was right.'
      : 'A kernel ran on it, but its result was WRONG: update its driver.',
  )
  output.emit('doctor', { host, adapters: adapters.map(({ lines: _, ...facts }) => facts), picked: root.name, works })
  if (!works) process.exitCode = 1
}

async function doublesNumbers(gpu: Gpu): Promise<boolean> {
  using step = gpu.step()
  const numbers = Array.from({ length: 64 }, (_, i) => i - 20)
  const doubled = await step.read(scale(step, step.upload('f32', [64], numbers), 2))
  return numbers.every((number, i) => doubled[i] === 2 * number)
}

function describe(adapter: GPUAdapter) {
  const { info, limits, features } = adapter
  const name = adapterName(info)
  const has = (feature: string) => features.has(feature as GPUFeatureName)
  const yes = (feature: string, use: string) => `${has(feature) ? 'yes' : 'no '}  ${feature}: ${use}`
  const facts = {
    name,
    vendor: info.vendor,
    architecture: info.architecture,
    software: isSoftware(adapter),
    features: [...features].sort(),
    limits: {
      maxBufferSize: limits.maxBufferSize,
      maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
      maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
      maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
      maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
    },
  }
  const lines = [
    yes('shader-f16', 'weights and activations at half the memory'),
    yes('subgroups', 'faster sums, where kernels use them'),
    yes('timestamp-query', 'times of single kernels in the bench'),
    yes('chromium-experimental-subgroup-matrix', 'matrix units'),
    `largest tensor ${byteSize(limits.maxStorageBufferBindingSize)}, largest buffer ${byteSize(limits.maxBufferSize)}`,
    `${limits.maxComputeInvocationsPerWorkgroup} invocations and ${byteSize(limits.maxComputeWorkgroupStorageSize)} of shared memory a workgroup, ${limits.maxStorageBuffersPerShaderStage} buffers a kernel`,
  ]
  return { ...facts, lines }
}
