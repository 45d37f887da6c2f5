// The rate of an adapter's matrix units, one number for each subgroup-matrix configuration that it offers. WebGPU has
// them as an experiment of Chromium's; where the feature is missing there is nothing to measure.
import { type GpuRoot, listAdapters } from '../src/host/gpu-root.ts'
import { timingOf } from './timing.ts'

const feature = 'chromium-experimental-subgroup-matrix' as GPUFeatureName

/** What the adapter's `info.subgroupMatrixConfigs` lists; the types of WebGPU do not know it yet. */
interface Configuration {
  readonly componentType: string
  readonly resultComponentType: string
  readonly M: number
  readonly N: number
  readonly K: number
}

/** The rate of one configuration. */
export interface MatrixRate extends Configuration {
  readonly gflops: number
}

const groups = 2048
const subgroups = 4 // of a workgroup
const rounds = 8192
const chains = 4
const samples = 20

/** Four independent chains of multiply-accumulates a subgroup; a left factor is M × K, a right one K × N. */
function shaderOf({ componentType, resultComponentType, M, N, K }: Configuration, lanes: number): string {
  const each = Array.from({ length: chains }, (_, i) => i)
  return `enable chromium_experimental_subgroup_matrix;
enable subgroups;
${[componentType, resultComponentType].includes('f16') ? 'enable f16;' : ''}
alias result = subgroup_matrix_result<${resultComponentType}, ${N}, ${M}>;
@group(0) @binding(0) var<storage, read_write> y: array<${resultComponentType}>;
@compute @workgroup_size(${subgroups * lanes})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) part: u32) {
  let left = subgroup_matrix_left<${componentType}, ${K}, ${M}>(${componentType}(1));
  let right = subgroup_matrix_right<${componentType}, ${N}, ${K}>(${componentType}(1));
  ${each.map((i) => `var sum${i}: result;`).join(' ')}
  for (var round = 0u; round < ${rounds}u; round++) {
    ${each.map((i) => `sum${i} = subgroupMatrixMultiplyAccumulate(left, right, sum${i});`).join('\n    ')}
  }
  ${each.map((i) => `subgroupMatrixStore(&y, ((group.x * ${subgroups}u + part) * ${chains}u + ${i}u) * ${M * N}u, sum${i}, false, ${N});`).join('\n  ')}
}`
}

/** The rate of every configuration; nothing where the adapter has no matrix units. */
export async function measureMatrixUnits(root: GpuRoot): Promise<MatrixRate[]> {
  if (!root.adapter.features.has(feature)) return []
  // An adapter gives one device, and the bench has taken this one's.
  const adapter = (await listAdapters(root.gpu)).find(({ info }) => info.device === root.adapter.info.device)!
  const wanted = [feature, 'subgroups', 'shader-f16'] as GPUFeatureName[]
  const device = await adapter.requestDevice({ requiredFeatures: wanted.filter((name) => adapter.features.has(name)) })
  const { subgroupMatrixConfigs, subgroupMaxSize } = adapter.info as GPUAdapterInfo & {
    subgroupMatrixConfigs: Iterable<Configuration>
  }
  const rates: MatrixRate[] = []
  for (const { componentType, resultComponentType, M, N, K } of subgroupMatrixConfigs) {
    const configuration = { componentType, resultComponentType, M, N, K }
    const ms = await timeShader(
      device,
      shaderOf(configuration, subgroupMaxSize),
      groups * subgroups * chains * M * N * 4,
    )
    rates.push({ ...configuration, gflops: (2 * M * N * K * groups * subgroups * chains * rounds) / ms / 1e6 })
  }
  device.destroy()
  return rates
}

/** Median time in ms of a shader that writes one buffer of `bytes`. */
async function timeShader(device: GPUDevice, code: string, bytes: number): Promise<number> {
  const module = device.createShaderModule({ code })
  const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module } })
  const buffer = device.createBuffer({ size: bytes, usage: GPUBufferUsage.STORAGE })
  const entries = [{ binding: 0, resource: { buffer } }]
  const bindGroup = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries })
  const times: number[] = []
  for (let i = 0; i < samples + 3; i++) {
    const encoder = device.createCommandEncoder()
    const pass = encoder.beginComputePass()
    pass.setPipeline(pipeline)
    pass.setBindGroup(0, bindGroup)
    pass.dispatchWorkgroups(groups)
    pass.end()
    const began = performance.now()
    device.queue.submit([encoder.finish()])
    await device.queue.onSubmittedWorkDone()
    if (i >= 3) times.push(performance.now() - began)
  }
  buffer.destroy()
  return timingOf(times).median
}
