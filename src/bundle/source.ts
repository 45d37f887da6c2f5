import type { Files } from './files.ts'

/** A file from a directory input, with the path that it has in the chosen folder. */
export interface PlacedFile {
  readonly path: string
  readonly file: File
}

/**
 * Where a bundle lies. A text or URL is a path in Node and a web address in a browser, of a folder or of a .zip; a
 * browser also takes a folder that a person picked, the files of a directory input, and a .zip as a Blob.
 */
export type BundleSource =
  | string
  | URL
  | Files
  | Blob
  | FileSystemDirectoryHandle
  | FileList
  | readonly File[]
  | readonly PlacedFile[]

/** A bundle's files, open until they are disposed of. */
export interface OpenBundle extends AsyncDisposable {
  readonly files: Files
}

/** Whether a source is a set of files already. */
export function isFiles(source: BundleSource): source is Files {
  return typeof source === 'object' && 'list' in source && 'read' in source && 'size' in source
}
