import { homedir } from 'node:os'
import { join } from 'node:path'

/** A path in the folder where Nexus keeps what it can make or fetch again: `$XDG_CACHE_HOME/nexus` or `~/.cache/nexus`. */
export function cachePath(...parts: readonly string[]): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'nexus', ...parts)
}
