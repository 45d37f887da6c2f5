import { type Shape, sameShape, showShape } from '../core/shape.ts'
import type { ByteSource } from './byte-source.ts'
import { type Gguf, readGgufRows } from './gguf.ts'
import type { ModelConfig } from './model-family.ts'
import { type NamingScheme, type TensorRecipe, tensorRecipes, unpermuteHeads } from './tensor-recipes.ts'

/** A file, or several, that give tensors by name, a window of rows at a time. */
export interface WeightFile {
  readonly scheme: NamingScheme
  /** Shapes by the names in the file. */
  readonly shapes: ReadonlyMap<string, Shape>
  /**
   * Rows of a tensor as f32; rows are counted over all dimensions but the last, a vector is one row.
   * @throws RangeError when there are no such rows.
   */
  rows(name: string, first: number, count: number): Promise<Float32Array<ArrayBuffer>>
}

/** The tensors of a GGUF file. */
export function ggufWeights(source: ByteSource, { tensors }: Gguf): WeightFile {
  return {
    scheme: 'gguf',
    shapes: new Map([...tensors].map(([name, { shape }]) => [name, shape])),
    rows: (name, first, count) => readGgufRows(source, tensors.get(name)!, first, count),
  }
}

/**
 * A model's weights, read from its file one tensor or one window of rows at a time and transformed as
 * {@link tensorRecipes} says, so that no more than that is ever in memory.
 */
export class ModelWeights {
  readonly config: ModelConfig
  /** By the model's names, in the order of the network. */
  readonly recipes: ReadonlyMap<string, TensorRecipe>
  readonly #file: WeightFile
  readonly #prefix: string

  /** @throws SyntaxError naming the first tensor that is missing or of another shape. */
  constructor(config: ModelConfig, file: WeightFile) {
    this.config = config
    this.#file = file
    this.recipes = tensorRecipes(config, file.scheme)
    const [first] = this.recipes.values()
    // Models with several parts keep the text part under a name of its own.
    const prefixes = ['', 'language_model.', 'model.language_model.']
    this.#prefix = prefixes.find((prefix) => file.shapes.has(within(prefix, first.from))) ?? ''
    for (const [name, { from, fromShape }] of this.recipes) {
      const shape = file.shapes.get(within(this.#prefix, from))
      if (!shape) throw new SyntaxError(`Cannot load the model: ${name} needs the tensor ${from}, which the file lacks`)
      if (!sameShape(shape, fromShape))
        throw new SyntaxError(
          `Cannot load the model: ${from} must be ${showShape(fromShape)}, the file has ${showShape(shape)}`,
        )
    }
  }

  /**
   * Rows of one of the model's tensors as f32; a vector has as many rows as elements.
   * @param count all that follow `first` unless told.
   * @throws RangeError when the tensor has no such rows.
   */
  async read(name: string, first = 0, count?: number): Promise<Float32Array<ArrayBuffer>> {
    const recipe = this.recipes.get(name)
    if (!recipe) throw new RangeError(`Cannot read ${name}: the model has no such tensor`)
    const { shape, transform } = recipe
    const wanted = count ?? shape[0] - first
    if (!Number.isInteger(first) || !Number.isInteger(wanted) || first < 0 || wanted < 0 || first + wanted > shape[0])
      throw new RangeError(`Cannot read rows ${first} to ${first + wanted} of ${name}: it has ${shape[0]}`)
    const columns = shape.length === 1 ? 1 : shape[1]
    if (transform?.type === 'unpermute') {
      const { headSize } = transform
      const begin = Math.floor(first / headSize) * headSize
      const end = Math.ceil((first + wanted) / headSize) * headSize
      const heads = unpermuteHeads(await this.#rows(recipe, begin, end - begin), columns, headSize)
      return heads.slice((first - begin) * columns, (first - begin + wanted) * columns)
    }
    const values = await this.#rows(recipe, first + (transform?.type === 'rows' ? transform.first : 0), wanted)
    if (transform?.type === 'add') for (let i = 0; i < values.length; i++) values[i] += transform.value
    return values
  }

  /**
   * Rows of a tensor as the file has it, fused and untransformed, by a name that recipes come `from`; a vector whole.
   * @throws RangeError when there is none, or no such rows.
   */
  async readStored(from: string, first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const name = within(this.#prefix, from)
    const shape = this.#file.shapes.get(name)
    if (!shape) throw new RangeError(`Cannot read ${from}: the file has no such tensor`)
    if (shape.length > 1) return this.#file.rows(name, first, count)
    return (await this.#file.rows(name, 0, 1)).slice(first, first + count)
  }

  /** How the file names its tensors. */
  get scheme(): NamingScheme {
    return this.#file.scheme
  }

  /** A tensor of the file by its own name, whole: for what recipes do not cover, such as rope divisors. */
  async readExtra(name: string): Promise<Float32Array<ArrayBuffer>> {
    const shape = this.#file.shapes.get(name)
    if (!shape) throw new RangeError(`Cannot read ${name}: the file has no such tensor`)
    return this.#file.rows(
      name,
      0,
      shape.slice(0, -1).reduce((rows, dimension) => rows * dimension, 1),
    )
  }

  async #rows({ from, fromShape }: TensorRecipe, first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const name = within(this.#prefix, from)
    if (fromShape.length === 2) return this.#file.rows(name, first, count)
    return (await this.#file.rows(name, 0, 1)).slice(first, first + count)
  }
}

/** `name` under `prefix`, which stands before model. or takes its place. */
function within(prefix: string, name: string): string {
  return prefix === 'model.language_model.' ? name.replace(/^model\./, prefix) : prefix + name
}
