import { parentPort, workerData } from 'node:worker_threads';
import { instantiateCedar } from './cedar.ts';
import { validatePolicies } from './validate.ts';
import type { PolicyText } from './source.ts';

/** What the worker is given; it answers with one message, a ValidationResult. */
export interface ValidationJob {
  readonly schema: string;
  readonly texts: readonly PolicyText[];
  readonly sources: Readonly<Record<string, string>>;
}

const { schema, texts, sources } = workerData as ValidationJob;
parentPort?.postMessage(validatePolicies(instantiateCedar(), schema, texts, sources));
