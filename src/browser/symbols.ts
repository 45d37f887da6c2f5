// Some browsers do not know these symbols yet (Safari); compiled `using` looks for the same ones. Imported before all else.
for (const name of ['dispose', 'asyncDispose'])
  if (!(name in Symbol)) Object.defineProperty(Symbol, name, { value: Symbol.for(`Symbol.${name}`) })
