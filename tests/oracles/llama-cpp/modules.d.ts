// The oracle has a package.json of its own and need not be installed.
declare module 'node-llama-cpp'
