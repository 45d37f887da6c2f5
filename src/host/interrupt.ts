/**
 * A signal that Ctrl-C (SIGINT) or SIGTERM aborts, so that work stops at its next safe place. A second Ctrl-C ends the
 * process at once.
 */
export function interruptSignal(say: (line: string) => void): AbortSignal {
  const controller = new AbortController()
  const stop = () => {
    if (controller.signal.aborted) process.exit(130)
    say('Stopping at the next safe place; press Ctrl-C again to stop at once.')
    controller.abort()
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  return controller.signal
}
