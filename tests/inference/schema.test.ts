import { Ajv2020 } from 'ajv/dist/2020.js'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import type { DecoderConfig } from '../../src/formats/model-config.ts'
import type { Tokenizer } from '../../src/formats/tokenizer.ts'
import { constraintOf } from '../../src/inference/constraints.ts'
import { Engine } from '../../src/inference/engine.ts'
import { generateText, type TextOptions } from '../../src/inference/generate.ts'
import { Decoder } from '../../src/models/decoder.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

/** Token 0 ends; then all bytes, and some longer tokens. */
const longer = ['{"', '":', '",', '"}', 'true', 'null', 'é', ' "', '00'].map((text) => new TextEncoder().encode(text))
const spelled = [undefined, ...Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)), ...longer]
const tokenizer: Tokenizer = {
  size: spelled.length,
  specials: new Map(),
  encode: (text) => [...new TextEncoder().encode(text)].map((value) => value + 1),
  decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids.flatMap((id) => [...(spelled[id] ?? [])]))),
  bytes: () => spelled,
}
const config: DecoderConfig = {
  ...{ vocabularySize: 270, width: 32, layers: 1, heads: 4, kvHeads: 2, headSize: 8, ffnWidth: 48 },
  ...{ normEps: 1e-5, ropeTheta: 10_000, contextLength: 256, tiedHead: true, eosId: 0 },
}

async function answer(engine: Engine, options: TextOptions) {
  let text = ''
  let last: string | undefined
  for await (const piece of generateText(engine, tokenizer, [5, 9], { maxTokens: 200, ...options })) {
    text += piece.text
    last = piece.finish
  }
  return { text, finish: last }
}

const ajv = new Ajv2020({ strict: false })
const properties = fc.dictionary(
  fc.constantFrom('a', 'be', 'é'),
  fc.constantFrom<object>(
    { type: 'integer', minimum: -5, maximum: 1000 },
    { type: 'string', maxLength: 6 },
    { enum: ['red', 'green', null, 7] },
    { type: 'array', items: { type: 'boolean' }, maxItems: 3 },
    { type: ['number', 'null'] },
  ),
)
const schemas = fc.tuple(properties, fc.boolean()).map(([properties, all]) => ({
  ...{ type: 'object', properties, additionalProperties: false },
  required: all ? Object.keys(properties) : [],
}))

test('whatever a random model is asked for in a schema validates, unless it ends by length and says so', () =>
  withoutLeaks(async () => {
    using model = Decoder.random(gpu, config, new Random(3), 0.5)
    using engine = new Engine(model, { pageSize: 16, cacheType: 'f32' })
    const ends = { stop: 0, length: 0 }
    const samplings = [{}, { temperature: 1 }, { temperature: 5, topK: 40, repetitionPenalty: 1.3 }]
    await fc.assert(
      fc.asyncProperty(schemas, fc.nat(1000), fc.nat(2), async (schema, seed, kind) => {
        const { text, finish } = await answer(engine, { schema, seed, ...samplings[kind] })
        ends[finish as 'stop']++
        if (finish === 'length') return
        expect(finish).toBe('stop')
        if (!ajv.validate(schema, JSON.parse(text))) throw new Error(`${text}: ${ajv.errorsText()}`)
      }),
      { seed: 42, numRuns: 40 },
    )
    expect(ends.stop).toBeGreaterThan(25)
  }))

test('one of some texts; what is cut says so; a row of a batch is free while another is bound', () =>
  withoutLeaks(async () => {
    using model = Decoder.random(gpu, config, new Random(4), 0.5)
    using engine = new Engine(model, { pageSize: 16, cacheType: 'f32', tokens: 512 })
    const choices = ['true', 'tru', ' blanks first', 'né']
    for (let seed = 0; seed < 8; seed++) {
      const { text, finish } = await answer(engine, { choices, seed, temperature: 3 })
      expect(choices).toContain(text)
      expect(finish).toBe('stop')
    }
    const cut = await answer(engine, { schema: { type: 'string', minLength: 50 }, maxTokens: 10 })
    expect(cut.finish).toBe('length')
    expect(() => JSON.parse(cut.text)).toThrow()
    await expect(answer(engine, { schema: {}, choices })).rejects.toThrow('at once')
    await expect(answer(engine, { schema: { format: 'date' } })).rejects.toThrow('format is not supported')
    const controller = new AbortController()
    controller.abort()
    expect((await answer(engine, { schema: {}, signal: controller.signal })).finish).toBe('cancelled')

    // A token that ends answers is no text, even where it is spelled as one.
    const line = 1 + 10
    const ending = { vocabularySize: 270, eosIds: [line] }
    const blank = constraintOf(
      { schema: { type: 'array', items: { type: 'null' }, maxItems: 0 } },
      tokenizer,
      ending,
    )!.begin()
    blank.take(1 + '['.charCodeAt(0))
    expect((blank.mask()[line >> 5] >>> (line & 31)) & 1).toBe(0)
    expect(() => blank.take(line)).toThrow('Cannot take token 11')

    const free = { ids: [7], maxTokens: 12, temperature: 1, seed: 5 }
    const constraint = constraintOf({ choices: ['null', 'true'] }, tokenizer, model.config)
    const made: number[][] = [[], [], []]
    for await (const tokens of engine.run([free, { ...free, constraint }, free]))
      for (const [i, token] of tokens.entries()) if (token) made[i].push(token.id)
    const alone: number[] = []
    for await (const [token] of engine.run([free])) alone.push(token!.id)
    expect([made[0], made[2]]).toEqual([alone, alone])
    expect(['null', 'true']).toContain(tokenizer.decode(made[1]))
    expect(engine.freeTokens).toBe(512)
  }))
