// The page inside a bundle: chat and comparison. It holds nothing that trains.
import { App } from './app.ts'
import { openInWorker } from './worker-model.ts'

void new App({ openModel: openInWorker(false), views: [] }).start()
