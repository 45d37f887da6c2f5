// The script of the worker that BrowserModel starts.
import './symbols.ts'

import { type Port, serve } from './serve.ts'

serve(globalThis as unknown as Port)
