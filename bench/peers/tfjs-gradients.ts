import { registerHooks } from 'node:module'

/**
 * Gives tfjs-core its gradients in Node: its package has them as modules that import each other without `.js`, as bundlers
 * allow and Node does not. The registry is one for all copies of the library in a process.
 */
export async function registerTfjsGradients(): Promise<void> {
  const hooks = registerHooks({
    resolve(specifier, context, next) {
      const inside = specifier.startsWith('.') && context.parentURL?.includes('/@tensorflow/tfjs-core/dist/')
      return next(inside && !specifier.endsWith('.js') ? `${specifier}.js` : specifier, context)
    },
  })
  try {
    await import('@tensorflow/tfjs-core/dist/register_all_gradients.js')
  } finally {
    hooks.deregister()
  }
}
