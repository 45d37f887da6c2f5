// Every op of the library that is timed; bench/cases/ has them by room.

import { attentionCases } from './cases/attention.ts'
import type { Case } from './cases/case.ts'
import { lossesCases } from './cases/losses.ts'
import { optimisersCases } from './cases/optimisers.ts'
import { pcaCases } from './cases/pca.ts'
import { productsCases } from './cases/products.ts'
import { quantizedCases } from './cases/quantized.ts'
import { rowsCases } from './cases/rows.ts'
import { stateSpaceCases } from './cases/state-space.ts'
import { tokensCases } from './cases/tokens.ts'

export { type Case, Maker } from './cases/case.ts'

/** Every op of the library. */
export const cases: readonly Case[] = [
  ...productsCases,
  ...quantizedCases,
  ...attentionCases,
  ...rowsCases,
  ...stateSpaceCases,
  ...tokensCases,
  ...lossesCases,
  ...pcaCases,
  ...optimisersCases,
]
