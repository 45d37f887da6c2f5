// Batches, optimiser, schedules, checkpoints, the loop, fine-tuning.
export { type Checkpoint, CheckpointStore } from './checkpoint-store.ts'
export { type FinetuneResult, finetune } from './finetune.ts'
export type { FinetuneOptions } from './finetune-inputs.ts'
export { type FinetunePlan, planFinetune } from './finetune-plan.ts'
export { type FinetuneSettings, finetuneDefaults } from './finetune-settings.ts'
export { trainLoop } from './loop.ts'
export { Optimiser } from './optimiser.ts'
export { schedules } from './schedule.ts'
