/** What an {@link EarlyStop} has seen, for a checkpoint. */
export interface EarlyStopState {
  /** The smallest score so far, or none. */
  readonly best: number | null
  /** Scores since then. */
  readonly since: number
}

/** Says when a score, the smaller the better, has not improved for a while. */
export class EarlyStop {
  readonly #patience: number
  #state: EarlyStopState

  /** @param patience scores without improvement after which to stop; 0 never stops. */
  constructor(patience: number, state: EarlyStopState = { best: null, since: 0 }) {
    this.#patience = patience
    this.#state = state
  }

  /** Whether it is time to stop. */
  get stopped(): boolean {
    return this.#patience > 0 && this.#state.since >= this.#patience
  }

  /** Takes the next score. @returns whether to stop. */
  add(score: number): boolean {
    const { best, since } = this.#state
    this.#state = best === null || score < best ? { best: score, since: 0 } : { best, since: since + 1 }
    return this.stopped
  }

  /** What it has seen. */
  save(): EarlyStopState {
    return this.#state
  }
}
