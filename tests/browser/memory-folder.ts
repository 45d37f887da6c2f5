/** A folder of the kind that browsers have, in memory. */
export class MemoryFolder {
  readonly files = new Map<string, Uint8Array<ArrayBuffer>>()
  readonly #room: number

  /** @param room most bytes of one file. */
  constructor(room = Number.POSITIVE_INFINITY) {
    this.#room = room
  }

  get handle(): FileSystemDirectoryHandle {
    const { files } = this
    const room = this.#room
    const handleOf = (name: string) => {
      let place = name
      return {
        kind: 'file',
        name,
        getFile: async () => new File([files.get(place)!], place),
        createWritable: async () => ({
          write: async (bytes: Uint8Array<ArrayBuffer>) => {
            if (bytes.length > room) throw new DOMException('There is no room', 'QuotaExceededError')
            files.set(place, bytes.slice())
          },
          close: async () => {},
        }),
        move: async (to: string) => {
          files.set(to, files.get(place)!)
          files.delete(place)
          place = to
        },
      }
    }
    return {
      kind: 'directory',
      getFileHandle: async (name: string, { create = false } = {}) => {
        if (!files.has(name)) {
          if (!create) throw new DOMException(`There is no ${name}`, 'NotFoundError')
          files.set(name, new Uint8Array())
        }
        return handleOf(name)
      },
      removeEntry: async (name: string) => {
        files.delete(name)
      },
      async *entries() {
        for (const name of files.keys()) yield [name, handleOf(name)]
      },
    } as unknown as FileSystemDirectoryHandle
  }
}
