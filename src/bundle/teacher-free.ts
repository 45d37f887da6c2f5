import { BundleError } from '../core/errors.ts'
import type { Files } from './files.ts'
import { kindOf } from './layout.ts'

/** Words that no path and no configuration of a bundle holds. */
export const configTerms = /teacher|optimi[sz]er|gradient|checkpoint|adamw|distil|training_args|capture|anchor/i

/**
 * Words that no program in a bundle holds. Kernels carry their gradients, so that word alone is allowed here, and a
 * program that reads manifests says `teacher_free`.
 */
export const codeTerms =
  /teacher(?![_-]?free)|optimi[sz]er|adamw|distil|niwt|training[ _-]?(?:args|loop|step|data)|learning_?rate|gradient[ _-]?(?:descent|accum|clip)|weight_?decay/i

const tokenizerKeys = [
  ...['version', 'truncation', 'padding', 'added_tokens', 'normalizer', 'pre_tokenizer', 'post_processor'],
  ...['decoder', 'model'],
]

/**
 * Looks for a teacher or for training in the paths, the code and the configuration. The report and the README may tell
 * of them, and a vocabulary may hold the words; what weights hold is checked tensor by tensor elsewhere.
 * @throws BundleError with the file and the word.
 */
export async function checkTeacherFree(files: Files, paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const name = configTerms.exec(path)
    if (name) throw new BundleError(`the path ${path} speaks of ${name[0]}`)
    const kind = kindOf(path)
    if (kind !== 'config' && kind !== 'code') continue
    const text = new TextDecoder().decode(await files.read(path))
    if (path === 'tokenizer/tokenizer.json') {
      const odd = Object.keys(JSON.parse(text)).find((key) => !tokenizerKeys.includes(key))
      if (odd !== undefined)
        throw new BundleError(`${path} holds ${JSON.stringify(odd)}, which is no part of a tokenizer`)
      continue
    }
    const found = kind === 'code' ? codeTerms.exec(withoutPatterns(text)) : configTerms.exec(text)
    if (found) throw new BundleError(`${path} speaks of ${found[0]}`)
  }
}

/** A program that verifies bundles holds the two patterns themselves. */
function withoutPatterns(code: string): string {
  return code.replaceAll(configTerms.source, '').replaceAll(codeTerms.source, '')
}
