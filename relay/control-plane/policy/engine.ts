import { ZtnaError } from '../../../protocol/index.ts';
import { instantiateCedar, type Cedar } from './cedar.ts';
import { distinct, type PassingRead } from './reads-time.ts';
import { policySchema } from './schema.ts';
import type { CheckedPolicies } from './check.ts';
import type { PolicyContext } from './context.ts';
import type { Atom } from './need.ts';
import type { CheckedPolicy } from './validate.ts';
import type {
  AuthorizationAnswer,
  CedarValueJson,
  CheckParseAnswer,
  EntityJson,
  Expr,
  PolicyJson,
} from '@cedar-policy/cedar-wasm/nodejs';

/** One question to the policy: may this user on this device reach that app now. Names, not ids. */
export interface PolicyRequest {
  readonly user: string;
  readonly groups: readonly string[];
  readonly app: string;
  readonly site: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly context: PolicyContext;
}

export interface PolicyDecision {
  readonly verdict: 'allow' | 'deny';
  /** Ids of the policies that decided; empty when nothing permits. */
  readonly reasons: readonly string[];
  /** Anything that went wrong. Then the verdict is deny, whatever the policies say. */
  readonly errors: readonly string[];
  /** True when the answer may change as time passes, with no other input changed. */
  readonly readsTime: boolean;
  /** Version decided under; 0: no policy is active, and everything is denied. */
  readonly policyVersion: number;
}

/** Prepared sets kept at once; apps under the same policies share one. */
const maxPreparedSets = 1_000;

const schemaName = 'ztna';

/**
 * Decides by the active policies, default deny. A decision costs about 0.1 ms, because each app has its own
 * small, prepared set: policies whose head cannot match it are left out. Any error, any failure and any trap
 * inside Cedar is a deny.
 */
export class PolicyEngine {
  readonly extraChecks: readonly string[];
  readonly #schema: string;
  readonly #instantiate: () => Cedar;
  #cedar: Cedar | undefined;
  #policies: readonly CheckedPolicy[] = [];
  #version = 0;
  /** From the policies of a set, by index, to the id that it is prepared under; oldest use first. */
  readonly #prepared = new Map<string, string>();
  /** By app and site; of the active policies. */
  readonly #passingReads = new Map<string, readonly PassingRead[]>();

  constructor(
    options: { readonly extraChecks?: readonly string[] } = {},
    instantiate: () => Cedar = instantiateCedar,
  ) {
    this.extraChecks = options.extraChecks ?? [];
    this.#schema = policySchema(this.extraChecks);
    this.#instantiate = instantiate;
  }

  /** The schema that policies are written against, as Cedar text. */
  get schema(): string {
    return this.#schema;
  }

  get version(): number {
    return this.#version;
  }

  get policies(): readonly CheckedPolicy[] {
    return this.#policies;
  }

  /**
   * Replaces the active policies, all at once, in an instance of their own: Cedar cannot forget the old ones.
   * Throws ERR_POLICY_INVALID, and the old ones stay, when this process cannot prepare them.
   */
  activate(checked: CheckedPolicies, version: number): void {
    let cedar: Cedar;
    try {
      cedar = this.#start();
      prepare(cedar, 'all', checked.policies);
    } catch (cause) {
      throw new ZtnaError('ERR_POLICY_INVALID', {
        message: 'these policies could not be prepared; the old ones stay active',
        reason: 'policy_not_prepared',
        cause,
      });
    }
    this.#cedar = cedar;
    this.#policies = checked.policies;
    this.#version = version;
    this.#prepared.clear();
    this.#passingReads.clear();
  }

  decide(request: PolicyRequest): PolicyDecision {
    return this.#decideBy(request, this.#select(request));
  }

  /** By what the answers about an app may change as time passes, with no other input changed. */
  passingReads(of: Pick<PolicyRequest, 'app' | 'site'>): readonly PassingRead[] {
    const key = JSON.stringify([of.app, of.site]);
    const known = this.#passingReads.get(key);
    if (known) return known;
    const indexes = this.#select(of);
    const reads = distinct(indexes.flatMap((at) => this.#policies[at]?.passingReads ?? []));
    if (this.#passingReads.size >= maxPreparedSets) this.#passingReads.clear();
    this.#passingReads.set(key, reads);
    return reads;
  }

  /** What the permits say when no forbid is asked: for explanations. */
  decideByPermits(request: PolicyRequest): PolicyDecision {
    const permits = this.#select(request).filter((at) => this.#policies[at]?.effect === 'permit');
    return this.#decideBy(request, permits);
  }

  /** The policies whose head may match the app. */
  policiesAbout(request: PolicyRequest): CheckedPolicy[] {
    return this.#select(request).flatMap((at) => this.#policies[at] ?? []);
  }

  /** Which conditions hold in a request, each asked by itself; one that cannot be evaluated does not. For explanations. */
  holding(atoms: readonly Atom[], request: PolicyRequest): boolean[] {
    const policies = atoms.map(({ expression, wanted }, at) => [
      String(at),
      conditionPolicy(expression, wanted),
    ]);
    try {
      const answer = this.#ready().isAuthorized({
        ...toCall(request),
        policies: { staticPolicies: Object.fromEntries(policies) as Record<string, PolicyJson> },
      });
      const held = new Set(answer.type === 'success' ? answer.response.diagnostics.reason : []);
      return atoms.map((_, at) => held.has(String(at)));
    } catch {
      this.#forget();
      return atoms.map(() => false);
    }
  }

  /** An expression as it stands in a policy, without the `context.` before what it reads. */
  textOf(expression: Expr): string {
    try {
      const answer = this.#ready().policyToText(conditionPolicy(expression, true));
      if (answer.type === 'failure') return 'a condition';
      const body = /when\s*\{(?<body>.*)\};?\s*$/s.exec(answer.text)?.groups?.['body'] ?? '';
      return body
        .trim()
        .replaceAll(/\bcontext\./g, '')
        .replaceAll(/\s+/g, ' ');
    } catch {
      this.#forget();
      return 'a condition';
    }
  }

  /** A trap spoils the instance. */
  #forget(): void {
    this.#cedar = undefined;
    this.#prepared.clear();
  }

  /** Indexes of the policies whose head may match the app. */
  #select({ app, site }: Pick<PolicyRequest, 'app' | 'site'>): number[] {
    const indexes: number[] = [];
    for (const [at, policy] of this.#policies.entries()) {
      const matches =
        (policy.app === null || policy.app === app) &&
        (policy.site === null || policy.site === site);
      if (matches) indexes.push(at);
    }
    return indexes;
  }

  #decideBy(request: PolicyRequest, indexes: readonly number[]): PolicyDecision {
    const base = {
      readsTime: indexes.some((at) => (this.#policies[at]?.passingReads ?? []).length > 0),
      policyVersion: this.#version,
    };
    const deny = (errors: readonly string[]): PolicyDecision => ({
      verdict: 'deny',
      reasons: [],
      errors,
      ...base,
    });
    if (indexes.length === 0) return deny([]);
    let answer: AuthorizationAnswer;
    try {
      const cedar = this.#ready();
      answer = cedar.statefulIsAuthorized({
        ...toCall(request),
        preparsedSchemaName: schemaName,
        preparsedPolicySetId: this.#prepare(cedar, indexes),
        validateRequest: true,
      });
    } catch (error) {
      this.#forget();
      return deny([error instanceof Error ? error.message : 'policy evaluation stopped']);
    }
    if (answer.type === 'failure') return deny(answer.errors.map((error) => error.message));
    const { decision, diagnostics } = answer.response;
    // Cedar skips a policy that fails, so a broken forbid would let through what it forbids.
    if (diagnostics.errors.length > 0) {
      return deny(diagnostics.errors.map(({ policyId, error }) => `${policyId}: ${error.message}`));
    }
    return { verdict: decision, reasons: [...diagnostics.reason].sort(), errors: [], ...base };
  }

  #ready(): Cedar {
    if (!this.#cedar) {
      this.#prepared.clear();
      this.#cedar = this.#start();
    }
    return this.#cedar;
  }

  #start(): Cedar {
    const cedar = this.#instantiate();
    orThrow(cedar.preparseSchema(schemaName, this.#schema));
    return cedar;
  }

  /** Prepares a set, if it is not. Cedar cannot forget one, so ids are used again. */
  #prepare(cedar: Cedar, indexes: readonly number[]): string {
    const key = indexes.join(' ');
    let id = this.#prepared.get(key);
    this.#prepared.delete(key);
    if (id === undefined) {
      id = this.#freeId();
      prepare(
        cedar,
        id,
        indexes.flatMap((at) => this.#policies[at] ?? []),
      );
    }
    this.#prepared.set(key, id);
    return id;
  }

  #freeId(): string {
    if (this.#prepared.size < maxPreparedSets) return `set${this.#prepared.size}`;
    for (const [key, id] of this.#prepared) {
      this.#prepared.delete(key);
      return id;
    }
    return 'set0';
  }
}

/** On failure Cedar keeps what was under that id before; the caller must not decide by it. */
function prepare(cedar: Cedar, id: string, policies: readonly CheckedPolicy[]): void {
  const staticPolicies = Object.fromEntries(policies.map((policy) => [policy.id, policy.text]));
  orThrow(cedar.preparsePolicySet(id, { staticPolicies }));
}

function orThrow(answer: CheckParseAnswer): void {
  if (answer.type === 'success') return;
  throw new Error(answer.errors.map((error) => error.message).join('; '));
}

/** A policy that permits when an expression comes out as wanted, whoever asks. */
function conditionPolicy(expression: Expr, wanted: boolean): PolicyJson {
  const any = { op: 'All' } as const;
  const conditions = [{ kind: wanted ? 'when' : 'unless', body: expression } as const];
  return { effect: 'permit', principal: any, action: any, resource: any, conditions };
}

function toCall(request: PolicyRequest) {
  return {
    principal: { type: 'User', id: request.user },
    action: { type: 'Action', id: 'connect' },
    resource: { type: 'App', id: request.app },
    context: toCedarContext(request.context),
    entities: toEntities(request),
  };
}

function toCedarContext(context: PolicyContext): Record<string, CedarValueJson> {
  return {
    ...(context as unknown as Record<string, CedarValueJson>),
    device: { ...context.device, entity: { __entity: { type: 'Device', id: context.device.id } } },
    network: {
      ...context.network,
      address: { __extn: { fn: 'ip', arg: context.network.address } },
    },
  };
}

function toEntities({ user, groups, app, site, labels, context }: PolicyRequest): EntityJson[] {
  return [
    {
      uid: { type: 'User', id: user },
      attrs: {},
      parents: groups.map((group) => ({ type: 'Group', id: group })),
    },
    {
      uid: { type: 'App', id: app },
      attrs: {},
      parents: [{ type: 'Site', id: site }],
      tags: { ...labels },
    },
    { uid: { type: 'Device', id: context.device.id }, attrs: {}, parents: [] },
  ];
}
