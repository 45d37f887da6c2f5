// The playground: the page of a bundle, and training.
import { App } from './app.ts'
import { trainView } from './train-view.ts'
import { openInWorker } from './worker-model.ts'

void new App({ openModel: openInWorker(true), views: [trainView] }).start()
