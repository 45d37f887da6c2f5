// The peers have a package.json of their own and need not be installed: see interfaces.ts for what is called of them.
declare module 'onnxruntime-node'
declare module '@tensorflow/tfjs-core'
declare module '@tensorflow/tfjs-core/dist/register_all_gradients.js'
declare module '@tensorflow/tfjs-backend-webgpu'
declare module '@jax-js/jax'
