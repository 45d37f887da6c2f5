// The page of the browser tests: it offers the library to what the tests evaluate in it.
import * as nexus from '../../src/browser/index.ts'

Object.assign(globalThis, { nexus })
