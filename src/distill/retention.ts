/** One-sided 95 % quantile of the normal distribution. */
const z95 = 1.6448536269514722

/** What the gate says of a capability. */
export type Verdict = 'pass' | 'fail' | 'inconclusive'

/** How much of the teacher a student kept, on the same units. */
export interface Retention {
  /** Number of paired units. */
  readonly n: number
  readonly teacher: number
  readonly student: number
  /** student / teacher. */
  readonly ratio: number
  /** (student − chance) / (teacher − chance). */
  readonly corrected: number
  /** One-sided 95 % bounds of `ratio`. */
  readonly lower: number
  readonly upper: number
  /** Share of units on which the two disagree. */
  readonly discordance: number
  readonly verdict: Verdict
}

/**
 * Retention from paired results, with bounds of the ratio by its linearisation: the deviation of student − ratio ·
 * teacher over clusters. Units of one cluster (the characters of one passage) may depend on each other.
 * @param teacher 1 or 0 for each unit.
 * @param student the same units in the same order.
 * @param options.clusterSize units that belong together; 1 unless told.
 * @param options.required ratio that decides: passed when the lower bound reaches it, failed when the upper does not.
 * @param options.chance score of a guess at random; 0 unless told.
 * @throws RangeError when the lengths differ, or the teacher was never right.
 * @see Cochran, Sampling Techniques, 1977, section 6.3: the ratio estimator.
 */
export function retention(
  teacher: ArrayLike<number>,
  student: ArrayLike<number>,
  { required, clusterSize = 1, chance = 0 }: { required: number; clusterSize?: number; chance?: number },
): Retention {
  const n = teacher.length
  if (student.length !== n || n === 0)
    throw new RangeError(`Cannot compare ${n} units of the teacher with ${student.length} of the student`)
  let teacherRight = 0
  let studentRight = 0
  let discordant = 0
  for (let i = 0; i < n; i++) {
    teacherRight += teacher[i]
    studentRight += student[i]
    if (teacher[i] !== student[i]) discordant++
  }
  if (teacherRight === 0) throw new RangeError('Cannot measure retention: the teacher got nothing right')
  const ratio = studentRight / teacherRight
  const clusters = Math.ceil(n / clusterSize)
  let squares = 0
  for (let c = 0; c < clusters; c++) {
    let residual = 0
    for (let i = c * clusterSize; i < Math.min(n, (c + 1) * clusterSize); i++)
      residual += student[i] - ratio * teacher[i]
    squares += residual * residual
  }
  const deviation = Math.sqrt((squares * clusters) / Math.max(1, clusters - 1)) / teacherRight
  const lower = ratio - z95 * deviation
  const upper = ratio + z95 * deviation
  const verdict = lower >= required ? 'pass' : upper < required ? 'fail' : 'inconclusive'
  const score = (right: number) => right / n
  const corrected = (score(studentRight) - chance) / (score(teacherRight) - chance)
  return {
    n,
    teacher: score(teacherRight),
    student: score(studentRight),
    ratio,
    corrected,
    lower,
    upper,
    discordance: discordant / n,
    verdict,
  }
}

/** Two-sided 95 % quantile of the normal distribution. */
const z975 = 1.959963984540054

/** How much more often one is right than the other, on the same units. */
export interface PairedDifference {
  /** Score of the first less that of the second. */
  readonly gain: number
  /** Two-sided 95 % bounds of `gain`. */
  readonly lower: number
  readonly upper: number
}

/**
 * The difference of two paired scores with its 95 % interval, by the deviation of the differences over clusters.
 * @param a 1 or 0 for each unit.
 * @param b the same units in the same order.
 * @param clusterSize units that depend on each other; 1 unless told.
 * @throws RangeError when the lengths differ.
 */
export function pairedDifference(a: ArrayLike<number>, b: ArrayLike<number>, clusterSize = 1): PairedDifference {
  const n = a.length
  if (b.length !== n || n === 0) throw new RangeError(`Cannot compare ${n} units with ${b.length}`)
  let sum = 0
  for (let i = 0; i < n; i++) sum += a[i] - b[i]
  const gain = sum / n
  const clusters = Math.ceil(n / clusterSize)
  let squares = 0
  for (let c = 0; c < clusters; c++) {
    let residual = 0
    for (let i = c * clusterSize; i < Math.min(n, (c + 1) * clusterSize); i++) residual += a[i] - b[i] - gain
    squares += residual * residual
  }
  const deviation = Math.sqrt((squares * clusters) / Math.max(1, clusters - 1)) / n
  return { gain, lower: gain - z975 * deviation, upper: gain + z975 * deviation }
}
