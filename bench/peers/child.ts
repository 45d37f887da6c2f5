// The process of one peer:  node bench/peers/child.ts <ort|tfjs|jax> [adapter], with an IPC channel to its parent.
// It answers requests one after the other; a crash or hang here leaves the bench alive.
import { openGpuRoot } from '../../src/host/gpu-root.ts'
import { peerCases } from './cases.ts'
import { openJax } from './jax.ts'
import { openOrt } from './ort.ts'
import { type Peer, type Prepared, timeRuns } from './peer.ts'
import type { Request } from './process.ts'
import { openTfjs } from './tfjs.ts'
import { registerTfjsGradients } from './tfjs-gradients.ts'

const [name, adapter] = process.argv.slice(2)

/** What the peer's device complained of. */
const complaints: string[] = []

/**
 * Gives browser libraries `navigator.gpu` with the adapter that the bench runs on, and the globals of WebGPU. The
 * device keeps the checks of a browser: shaders that were written for one may rely on them.
 */
async function pretendBrowser(): Promise<void> {
  const { adapter: found, gpu } = await openGpuRoot({ adapter, robust: true })
  const requestDevice = found.requestDevice.bind(found)
  found.requestDevice = async (descriptor) => {
    const device = await requestDevice(descriptor)
    device.addEventListener('uncapturederror', (event) =>
      complaints.push((event as GPUUncapturedErrorEvent).error.message),
    )
    return device
  }
  const value = { requestAdapter: async () => found, wgslLanguageFeatures: gpu.wgslLanguageFeatures }
  Object.defineProperty(navigator, 'gpu', { value })
}

async function open(): Promise<Peer> {
  if (name === 'ort') {
    // It brings its own Dawn, and finds the driver by the environment that the parent set.
    const { default: ort } = await import('onnxruntime-node')
    return openOrt(ort)
  }
  await pretendBrowser()
  if (name === 'tfjs') {
    const { default: tf } = await import('@tensorflow/tfjs-core')
    await import('@tensorflow/tfjs-backend-webgpu')
    await registerTfjsGradients()
    return openTfjs(tf)
  }
  if (name === 'jax') {
    const { default: lock } = await import('./package-lock.json', { with: { type: 'json' } })
    return openJax(await import('@jax-js/jax'), lock.packages['node_modules/@jax-js/jax'].version)
  }
  throw new Error(`There is no peer ${name}`)
}

let opened: Promise<Peer> | undefined
let ready: Prepared | undefined

async function answer(request: Request): Promise<unknown> {
  opened ??= open()
  const peer = await opened
  if (request.do === 'open') return peer.version
  if (request.do === 'time') {
    if (!ready) throw new Error('its process had ended and was started again, without its case')
    return timeRuns(ready, request.count)
  }
  ready?.free()
  ready = undefined
  const item = peerCases.find((candidate) => candidate.name === request.name)!
  ready = await peer.prepare(item, item.inputs())
  return ready ? Float64Array.from(await ready.read()) : null
}

process.on('message', async (request: Request) => {
  try {
    const value = await answer(request)
    const complaint = complaints.splice(0)[0]
    if (complaint) throw new Error(complaint)
    process.send!({ value })
  } catch (error) {
    process.send!({ fault: error instanceof Error ? error.message : String(error) })
  }
})
process.on('disconnect', () => process.exit())
