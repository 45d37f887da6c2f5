/** A learning rate for every step, from 0 to `steps` − 1. */
export type Schedule = (step: number) => number

/** How a schedule rises and falls. */
export interface ScheduleOptions {
  /** Highest rate. */
  readonly lr: number
  readonly steps: number
  /** Steps of the linear rise from 0. */
  readonly warmup: number
}

/** Rises linearly to `lr` over the warm-up, then falls linearly to 0 at `steps`. */
export function linearSchedule({ lr, steps, warmup }: ScheduleOptions): Schedule {
  return (step) => lr * (step < warmup ? (step + 1) / warmup : Math.max(0, (steps - step) / (steps - warmup)))
}

/** Rises linearly to `lr` over the warm-up, then falls to 0 along half a cosine. */
export function cosineSchedule({ lr, steps, warmup }: ScheduleOptions): Schedule {
  return (step) => {
    if (step < warmup) return (lr * (step + 1)) / warmup
    return (lr / 2) * (1 + Math.cos(Math.PI * Math.min(1, (step - warmup) / (steps - warmup))))
  }
}
