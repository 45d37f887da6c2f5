// The package types its main entry only; the module build is the one that Node can import.
declare module 'wgsl_reflect/wgsl_reflect.module.js' {
  export * from 'wgsl_reflect'
}
