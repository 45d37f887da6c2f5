import { InvalidArgumentError } from 'commander'

/** A number from the command line. @throws InvalidArgumentError, which ends with exit code 2. */
export function number(text: string): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value) || value < 0)
    throw new InvalidArgumentError('give a number, 0 or larger.')
  return value
}

/** A whole number of at least one from the command line. @throws InvalidArgumentError, which ends with exit code 2. */
export function count(text: string): number {
  const value = number(text)
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('give a whole number, 1 or larger.')
  return value
}

/** Collects an option that may be given several times. */
export function several(text: string, all: string[]): string[] {
  return [...all, text]
}

/** An integer from the command line, 0 or larger. @throws InvalidArgumentError, which ends with exit code 2. */
export function whole(text: string): number {
  const value = number(text)
  if (!Number.isInteger(value)) throw new InvalidArgumentError('give a whole number.')
  return value
}
