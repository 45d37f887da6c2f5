// Low-rank adapters and the router.
export { Adapter } from './adapter.ts'
export { LinearRouter } from './linear-router.ts'
export { PrototypeRouter, type Router } from './router.ts'
