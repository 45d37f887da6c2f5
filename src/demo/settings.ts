import type { NiwtSettings } from '../distill/run.ts'

/** Settings of the demo: what two cores with the software GPU do in about six minutes. */
export const demoSettings: NiwtSettings = {
  tokens: 48,
  profile: { samples: 200, batch: 20, heldOutTokens: 960 },
  capture: { rows: { add: 1000, code: 1400, prose: 1600 }, topK: 16, anchorRank: 24, relationRank: 16 },
  student: { layers: 4, adapterBudget: 0.045 },
  distil: {
    adapterSteps: 10,
    jointSteps: 260,
    recoverySteps: 20,
    checkpointEvery: 30,
    rows: { add: 16, code: 20, prose: 24 },
    backboneLr: 4e-3,
    adapterLr: 5e-3,
    alpha: 2,
    beta: 0.2,
  },
}

/** Settings for a look at the pipeline in a minute or two; its student passes no gate. */
export const quickSettings: NiwtSettings = {
  ...demoSettings,
  profile: { samples: 20, batch: 10, heldOutTokens: 480 },
  capture: { ...demoSettings.capture, rows: { add: 80, code: 80, prose: 80 } },
  distil: {
    ...demoSettings.distil,
    adapterSteps: 2,
    jointSteps: 4,
    recoverySteps: 2,
    checkpointEvery: 2,
    rows: { add: 4, code: 4, prose: 4 },
  },
}
