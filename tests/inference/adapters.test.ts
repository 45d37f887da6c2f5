import { expect, test } from 'vitest'
import { ModelSession } from '../../src/browser/session.ts'
import { DeviceLostError } from '../../src/core/errors.ts'
import { parseSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { cpuTensor, toFloat32 } from '../../src/formats/tensor.ts'
import { openGpuRoot } from '../../src/host/gpu-root.ts'
import { NexusModel } from '../../src/inference/nexus-model.ts'
import { Gpu } from '../../src/runtime/gpu.ts'
import { adapterBytes, tinyBundle } from '../bundle/tiny-bundle.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const prompt = { prompt: 'abc', maxTokens: 8 }
const textOf = async (model: NexusModel, capability: string) => (await model.generate({ ...prompt, capability })).text

test('adapters are added, replaced and removed while the backbone stays', () =>
  withoutLeaks(async () => {
    using model = await NexusModel.load(await tinyBundle(), { gpu })
    const [add, code] = [await textOf(model, 'add'), await textOf(model, 'code')]
    expect(add).not.toBe(code)
    const { live } = gpu
    model.setAdapter('add', adapterBytes(1))
    expect(await textOf(model, 'add')).toBe(code)
    model.setAdapter('add', adapterBytes(0))
    expect(await textOf(model, 'add')).toBe(add)
    model.setAdapter('mine', adapterBytes(1))
    expect(model.capabilities).toEqual(['add', 'code', 'mine'])
    expect(await textOf(model, 'mine')).toBe(code)
    // The router does not know it.
    expect(['add', 'code']).toContain((await model.generate(prompt)).capability)
    model.removeAdapter('mine')
    expect(() => model.removeAdapter('mine')).toThrow('the bundle has add, code')
    await expect(textOf(model, 'mine')).rejects.toThrow('Cannot use capability "mine"')
    expect(() => model.setAdapter('odd', adapterBytes(0).slice(0, 40))).toThrow(SyntaxError)
    expect(model.capabilities).toEqual(['add', 'code'])
    expect(gpu.live - live).toBeLessThan(80) // recordings of answers, and no adapter
  }))

test('an adapter of PEFT brings its scale along', () =>
  withoutLeaks(async () => {
    using model = await NexusModel.load(await tinyBundle(), { gpu })
    const want = await model.logits({ prompt: 'abc', capability: 'code' })
    const halved = new Map(
      [...parseSafetensors(adapterBytes(1)).tensors].map(([name, tensor]) => [
        name,
        name.includes('lora_B')
          ? cpuTensor(
              'F32',
              tensor.shape,
              toFloat32(tensor).map((value) => value / 2),
            )
          : tensor,
      ]),
    )
    const config = { peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: ['q_proj'] }
    model.setAdapter('peft', writeSafetensors(halved), config)
    expect(await model.logits({ prompt: 'abc', capability: 'peft' })).toEqual(want)
    expect(() => model.setAdapter('peft', writeSafetensors(halved), { ...config, r: 5 })).toThrow('has rank 4')
  }))

test('an answer under way keeps the adapter that it began with', () =>
  withoutLeaks(async () => {
    using model = await NexusModel.load(await tinyBundle(), { gpu })
    const want = await textOf(model, 'add')
    const stream = model.stream({ ...prompt, capability: 'add' })
    let text = (await stream.next()).value as string
    model.setAdapter('add', adapterBytes(1))
    for await (const piece of stream) text += piece
    expect(text).toBe(want)
    expect(await textOf(model, 'add')).toBe(await textOf(model, 'code'))
    const removed = model.stream({ ...prompt, capability: 'code' })
    await removed.next()
    model.removeAdapter('code')
    await removed.return({} as never)
  }))

test('the stream says who answers, and returns the whole answer', () =>
  withoutLeaks(async () => {
    using model = await NexusModel.load(await tinyBundle({ restricted: ['code'] }), { gpu })
    const choices: unknown[] = []
    const stream = model.stream({ ...prompt, onChoice: (choice) => choices.push(choice) })
    let text = ''
    let step = await stream.next()
    expect(choices).toEqual([{ capability: 'add', chosenBy: 'router' }])
    for (; !step.done; step = await stream.next()) text += step.value
    expect(step.value).toMatchObject({ text, capability: 'add', chosenBy: 'router', tokens: 8 })
    expect(() => model.setAdapter('code', adapterBytes(1))).toThrow('it is restricted')
    expect(model.memory.liveBytes).toBeGreaterThan(0)
  }))

test('a session outlives its device: answers go on, added adapters come back, a second loss ends the request', async () => {
  const opened: Gpu[] = []
  let broken = false
  const openGpu = async () => {
    const found = await Gpu.open(await openGpuRoot())
    if (broken) found.device.destroy()
    opened.push(found)
    return found
  }
  const losses: string[] = []
  const session = await ModelSession.load(await tinyBundle(), { openGpu, onLost: (reason) => losses.push(reason) })
  const ask = async (capability: string, during = () => {}) => {
    const stream = session.stream({ ...prompt, capability })
    let text = ''
    for (let step = await stream.next(); !step.done; step = await stream.next()) {
      if (text === '') during()
      text += step.value
    }
    return text
  }
  const want = await ask('add')
  expect(await ask('add', () => session.loseDevice())).toBe(want)
  await session.setAdapter('mine', adapterBytes(1))
  await session.removeAdapter('code')
  session.loseDevice()
  expect(await ask('mine')).toHaveLength(8)
  expect(session.facts.capabilities).toEqual(['add', 'mine'])
  expect(await ask('add')).toBe(want)
  expect(losses).toHaveLength(2)
  expect(opened).toHaveLength(3)
  // One after the other, whoever asks meanwhile.
  expect(await Promise.all([ask('add'), ask('add')])).toEqual([want, want])
  broken = true
  session.loseDevice()
  await expect(ask('add')).rejects.toThrow(DeviceLostError)
  broken = false
  expect(await ask('add')).toBe(want)
  session.close()
})
