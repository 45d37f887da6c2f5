// A thread of `finish.ts`: one site a task.
import { serve } from '../host/worker-thread.ts'
import { finishSite } from './finish-site.ts'

serve(finishSite)
