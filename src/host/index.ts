// What is Node's: the GPU's root, files, the store of models.
export { FolderFiles } from './files.ts'
export { openGpuRoot } from './gpu-root.ts'
export { listStored, resolveModel, type StoredModel } from './model-store.ts'
