import { readFileSync } from 'node:fs'

/**
 * The most memory that this process has held at once, bytes. On Linux it is read from /proc: what `resourceUsage` says there
 * counts the process that started this one as well.
 */
export function peakMemory(): number {
  const atMost = /^VmHWM:\s*(\d+) kB/m.exec(
    process.platform === 'linux' ? readFileSync('/proc/self/status', 'utf8') : '',
  )
  return 1024 * (atMost ? Number(atMost[1]) : process.resourceUsage().maxRSS)
}
