/**
 * Which of several kernels that do the same work is used for what, on one adapter. Ops look here; an op's room measures
 * and writes here (see src/kernels/tune.ts). Choices are plain strings so that they can be stored between runs.
 */
export class Tuning {
  readonly #chosen = new Map<string, string>()

  /**
   * The choice for a kind of work.
   * @param options what there is to choose from; a stored name that is no longer among them is ignored.
   * @param usual what is taken when nothing was measured.
   */
  choice<Name extends string>(work: string, options: readonly Name[], usual: Name): Name {
    const chosen = this.#chosen.get(work) as Name | undefined
    return chosen !== undefined && options.includes(chosen) ? chosen : usual
  }

  /** Decides for a kind of work from now on; undefined goes back to the usual choice. */
  choose(work: string, name: string | undefined): void {
    if (name === undefined) this.#chosen.delete(work)
    else this.#chosen.set(work, name)
  }

  /** All choices, to be stored. */
  toJSON(): Record<string, string> {
    return Object.fromEntries(this.#chosen)
  }
}
