import { h, svg } from './dom.ts'

const [width, height] = [640, 240]
const [left, right, top, bottom] = [44, 12, 12, 26]

/** A curve that is drawn while the numbers come: each loss, and their running mean. */
export class LossCurve {
  readonly element: HTMLElement
  readonly #picture = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img' })
  readonly #losses: number[] = []
  #steps = 1

  constructor() {
    this.element = h('figure', { class: 'curve' }, this.#picture)
    this.begin(1)
  }

  /** Forgets what was drawn. @param steps that will come. */
  begin(steps: number): void {
    this.#steps = steps
    this.#losses.length = 0
    this.#draw()
  }

  /** Draws the next loss. */
  add(loss: number): void {
    this.#losses.push(loss)
    this.#draw()
  }

  #draw(): void {
    const losses = this.#losses
    const smooth = runningMean(losses)
    const ticks = ticksOf(losses)
    const [low, high] = [ticks[0], ticks[ticks.length - 1]]
    const x = (step: number) => left + ((step - 1) / Math.max(1, this.#steps - 1)) * (width - left - right)
    const y = (loss: number) => top + ((high - loss) / (high - low)) * (height - top - bottom)
    const path = (values: readonly number[]) =>
      values.map((value, i) => `${i === 0 ? 'M' : 'L'}${x(i + 1).toFixed(1)} ${y(value).toFixed(1)}`).join('')
    const last = smooth.at(-1)
    const digits = high - low < 0.05 ? 3 : high - low < 1 ? 2 : 1
    this.#picture.replaceChildren(
      ...ticks.flatMap((tick) => [
        svg('path', { class: 'grid', d: `M${left} ${y(tick).toFixed(1)}H${width - right}` }),
        svg('text', { x: left - 8, y: y(tick) + 4, 'text-anchor': 'end' }, losses.length ? tick.toFixed(digits) : ''),
      ]),
      svg('text', { x: left, y: height - 6 }, 'step 1'),
      svg('text', { x: width - right, y: height - 6, 'text-anchor': 'end' }, this.#steps > 1 ? `${this.#steps}` : ''),
      svg('path', { class: 'raw', d: path(losses) }),
      svg('path', { class: 'smooth', d: path(smooth) }),
      ...(last === undefined ? [] : [svg('circle', { class: 'dot', r: 5, cx: x(smooth.length), cy: y(last) })]),
    )
    this.#picture.setAttribute(
      'aria-label',
      last === undefined
        ? 'Loss by step; nothing yet'
        : `Loss by step: from ${losses[0].toFixed(2)} to ${last.toFixed(2)} after ${losses.length} of ${this.#steps}`,
    )
  }
}

/** Exponential means over about three values, without a bias towards the first. */
function runningMean(values: readonly number[]): number[] {
  let [sum, weight] = [0, 0]
  return values.map((value) => {
    sum = 0.65 * sum + value
    weight = 0.65 * weight + 1
    return sum / weight
  })
}

/** Three to six round numbers that hold all values between them. */
function ticksOf(values: readonly number[]): number[] {
  if (values.length === 0) return [0, 1, 2, 3]
  const [low, high] = [Math.min(...values), Math.max(...values)]
  const rough = Math.max(high - low, 0.01) / 3
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power
  const first = Math.floor(low / step)
  const last = Math.max(first + 1, Math.ceil(high / step))
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step)
}
