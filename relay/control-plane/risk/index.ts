/** What is unusual for a user: profiles that learn, and a score that is explained. */
export { RiskBook, type RiskBookOptions, type RiskFacts, type RiskStore } from './book.ts';
export { parseRiskEvent, type Place, type RiskEvent } from './event.ts';
export { RiskProfile, type Assessment, type Contribution, type RiskSignal } from './profile.ts';
export type { Alert } from './profile-state.ts';
export { defaultLearning, weights, type Anomaly, type Learning } from './weights.ts';
export { LiveRisk, type Happened, type LiveRiskOptions } from './live-risk.ts';
export { noPlaces, PlaceFinder, type PlaceFiles, type Places } from './place.ts';
export { AuditEvents } from './audit-events.ts';
export {
  RiskReplay,
  type ReplayOptions,
  type ReplaySummary,
  type RiskMoment,
  type Share,
} from './replay.ts';
