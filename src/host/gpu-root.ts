import { create } from 'webgpu'

const g = create(['enable-dawn-features=allow_unsafe_apis,disable_robustness'])
export async function openGpuRoot() {
  const adapter = await g.requestAdapter()
  if (!adapter) throw new Error('none')
  return { gpu: g, adapter }
}
