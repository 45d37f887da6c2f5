// What a teacher does on a capability: spectra and ranks of its activations, importance of heads and layers.
export { mergeProfiles } from './merge.ts'
export { type ProfileSettings, profileCapability, profileDefaults } from './profile.ts'
export { profileReport, writeReport } from './report.ts'
export { type ProfileRequest, runMerge, runProfile } from './run.ts'
export { type Profile, parseProfile, profileJsonSchema } from './schema.ts'
