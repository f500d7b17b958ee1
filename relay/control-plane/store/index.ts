export * from './database.ts';
export type * from './identity-tables.ts';
export type * from './signal-tables.ts';
export { readFactStamps, stampOf, type FactStamps } from './fact-stamps.ts';
export {
  raiseCounter,
  raiseCounterTo,
  readCounter,
  readMeta,
  writeMeta,
  type Counter,
} from './meta.ts';
export { pruneStore, type Pruned } from './prune.ts';
export { keepMarks, recoverFromRestore, recoverWhileRunning } from './restore.ts';
export {
  openStore,
  type Order,
  type Reader,
  type Store,
  type StoreOptions,
  type Topic,
  type Tx,
} from './store.ts';
