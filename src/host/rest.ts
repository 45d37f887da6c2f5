// Dawn in Node asks on every turn of the event loop whether the GPU is done: a whole core, which a GPU that runs on the
// processor needs itself. While anyone waits, the turns are made longer by a short sleep.

/** Milliseconds of sleep in a turn: what a wait can take longer than it must. */
const nap = 0.1
/** Milliseconds that a wait lasts before the first sleep: short work is not held up. */
const alert = 0.2
let since = 0
const cell = new Int32Array(new SharedArrayBuffer(4))
let waiting = 0
let turning = false

function turn(): void {
  turning = waiting > 0
  if (!turning) return
  if (performance.now() - since > alert) Atomics.wait(cell, 0, 0, nap)
  setImmediate(turn)
}

/** Waits for `work` of a GPU in software, and leaves it the processor meanwhile. In Node only. */
export async function resting<T>(work: Promise<T>): Promise<T> {
  if (waiting++ === 0) since = performance.now()
  if (!turning) {
    turning = true
    setImmediate(turn)
  }
  try {
    return await work
  } finally {
    waiting--
  }
}
