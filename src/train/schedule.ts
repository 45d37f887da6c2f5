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

/** The rate of the rise in step `step`, or none when it is over. */
function rise({ lr, warmup }: ScheduleOptions, step: number): number | undefined {
  return step < warmup ? (lr * (step + 1)) / warmup : undefined
}

/** Rises linearly to `lr` over the warm-up, then falls linearly to 0 at `steps`. */
export function linearSchedule({ lr, steps, warmup }: ScheduleOptions): Schedule {
  return (step) => lr * (step < warmup ? (step + 1) / warmup : Math.max(0, (steps - step) / (steps - warmup)))
}

/** Rises linearly to `lr` over the warm-up, then falls to 0 along half a cosine. */
export function cosineSchedule(options: ScheduleOptions): Schedule {
  const { lr, steps, warmup } = options
  return (step) =>
    rise(options, step) ?? (lr / 2) * (1 + Math.cos(Math.PI * Math.min(1, (step - warmup) / (steps - warmup))))
}

/** Rises linearly to `lr` over the warm-up, then stays there. */
export function constantSchedule(options: ScheduleOptions): Schedule {
  return (step) => rise(options, step) ?? options.lr
}

/**
 * Warm-up, stable, decay: rises linearly to `lr`, stays, and over the last `decay` steps falls as 1 − √x to 0 at `steps`.
 * @param options.decay steps of the fall; a tenth of all unless told.
 * @see Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations, 2024, section 3.
 */
export function stableSchedule(options: ScheduleOptions & { readonly decay?: number }): Schedule {
  const { lr, steps, decay = Math.ceil(steps / 10) } = options
  return (step) =>
    rise(options, step) ?? lr * (1 - Math.sqrt(Math.min(1, Math.max(0, step - (steps - decay)) / Math.max(1, decay))))
}

/** Schedules by the names that a command line knows them by. */
export const schedules = {
  cosine: cosineSchedule,
  linear: linearSchedule,
  stable: stableSchedule,
  constant: constantSchedule,
} as const

/** Name of a schedule. */
export type ScheduleName = keyof typeof schedules
