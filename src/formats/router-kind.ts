/** How a packed router chooses: by the nearest prototype, or by trained weights. */
export const routerKinds = ['prototypes', 'linear'] as const

/** One of {@link routerKinds}. */
export type RouterKind = (typeof routerKinds)[number]

/** The tensors of each kind of router: f32, a row for each capability, of so many values. */
export const routerTensors: Readonly<Record<RouterKind, (width: number) => Readonly<Record<string, number>>>> = {
  prototypes: (width) => ({ prototypes: width }),
  linear: (width) => ({ weights: width, bias: 1 }),
}
