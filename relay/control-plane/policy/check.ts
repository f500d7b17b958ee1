import { Worker } from 'node:worker_threads';
import { ZtnaError } from '../../../protocol/index.ts';
import { keepCedarCode } from './cedar.ts';
import { policySchema } from './schema.ts';
import { problemAt, splitPolicies, type PolicyFiles, type PolicyProblem } from './source.ts';
import type { ValidationJob } from './validate-worker.ts';
import type { CheckedPolicy, ValidationResult } from './validate.ts';

/** Policies fit for activation. Made only by `checkPolicies`. */
export interface CheckedPolicies {
  readonly __checked: unique symbol;
  readonly files: PolicyFiles;
  readonly policies: readonly CheckedPolicy[];
  readonly warnings: readonly PolicyProblem[];
}

export interface CheckOptions {
  /** The deployment's own posture checks, which policies may read. */
  readonly extraChecks?: readonly string[];
  /** Validation that takes longer is given up. Default 30 s. */
  readonly timeoutMs?: number;
}

const defaultTimeoutMs = 30_000;

/** Compiled code has another suffix than the sources. */
const workerUrl = new URL(
  import.meta.url.endsWith('.ts') ? './validate-worker.ts' : './validate-worker.js',
  import.meta.url,
);

/** Less stack than the main thread has: what the worker can parse, the main thread can. */
const resourceLimits = { stackSizeMb: 0.75, maxOldGenerationSizeMb: 256 };

/**
 * Finds everything wrong with policy files, in a thread of its own: a text that makes Cedar trap or run for
 * ever harms nothing. Answers policies, or problems, in file order.
 */
export async function findPolicyProblems(
  files: PolicyFiles,
  options: CheckOptions = {},
): Promise<ValidationResult> {
  const schema = policySchema(options.extraChecks);
  const { texts, problems } = splitPolicies(files);
  if (problems.length > 0) return { policies: [], problems, warnings: [] };
  keepCedarCode();
  return validateInWorker({ schema, texts, sources: files }, options.timeoutMs ?? defaultTimeoutMs);
}

/**
 * Checks policy files before activation. Throws ERR_POLICY_INVALID with the first problem as
 * `file:line:column: what`, and its hint.
 */
export async function checkPolicies(
  files: PolicyFiles,
  options: CheckOptions = {},
): Promise<CheckedPolicies> {
  const { policies, problems, warnings } = await findPolicyProblems(files, options);
  const [first] = problems;
  if (first) {
    throw new ZtnaError('ERR_POLICY_INVALID', {
      message: formatProblem(first),
      ...(first.hint === null ? {} : { hint: first.hint }),
      reason: 'policy_invalid',
    });
  }
  return { files: { ...files }, policies, warnings } as unknown as CheckedPolicies;
}

/** `wiki.cedar:3:14: what is wrong` */
export function formatProblem({ file, line, column, message }: PolicyProblem): string {
  return file === '' ? message : `${file}:${line}:${column}: ${message}`;
}

function validateInWorker(job: ValidationJob, timeoutMs: number): Promise<ValidationResult> {
  return new Promise((resolve) => {
    const worker = new Worker(workerUrl, { workerData: job, resourceLimits, stderr: true });
    const finish = (result: ValidationResult): void => {
      clearTimeout(timer);
      void worker.terminate();
      resolve(result);
    };
    const giveUp = (message: string): void => {
      const problems = [problemAt('', '', 0, message, 'simplify the policies')];
      finish({ policies: [], problems, warnings: [] });
    };
    const timer = setTimeout(giveUp, timeoutMs, 'validation took too long');
    worker.once('message', finish);
    worker.once('error', () => giveUp('Cedar could not cope with these policies'));
    worker.once('exit', () => giveUp('validation stopped before its end'));
  });
}
