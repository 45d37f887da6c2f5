// Low-rank adapters and the router.
export { Adapter } from './adapter.ts'
export { PrototypeRouter } from './router.ts'
