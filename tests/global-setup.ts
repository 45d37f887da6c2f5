import { openGpuRoot } from '../src/host/gpu-root.ts'

/** Sets up the software GPU, if it is needed, once for all workers: they inherit the environment that it sets. */
export default async function setup(): Promise<void> {
  const { name } = await openGpuRoot()
  console.error(`Tests run on ${name}`)
}
