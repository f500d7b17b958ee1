import {
  checkPolicies,
  PolicyEngine,
  timeFacts,
  unknownPosture,
  type PolicyContext,
  type PolicyFiles,
  type PolicyRequest,
} from '../../../../relay/control-plane/policy/index.ts';
import { startMs } from '../fixture.ts';

/** Circumstances under which nothing is wrong but what a test changes. */
export const context: PolicyContext = {
  device: { id: 'dev_1', platform: 'linux', hostname: 'laptop', enrolled_days: 12 },
  posture: {
    ...unknownPosture([]),
    disk_encryption: 'on',
    firewall: 'on',
    os_version: '14.5.1',
    os_version_number: 14_005_001,
    age_seconds: 4,
  },
  authentication: {
    mfa: false,
    phishing_resistant: false,
    methods: ['password'],
    provider: 'local',
    acr: '',
    age_seconds: 600,
  },
  network: { address: '10.1.2.3', country: '' },
  time: timeFacts(startMs),
  risk: { score: 10, factors: [] },
};

export const request: PolicyRequest = {
  user: 'anna',
  groups: ['engineering'],
  app: 'wiki',
  site: 'berlin',
  labels: { env: 'prod' },
  context,
};

export const permitAll = 'permit (principal, action, resource);';

/** A policy that permits everything under a condition. */
export const permitWhen = (condition: string): PolicyFiles => ({
  'p.cedar': `permit (principal, action, resource) when { ${condition} };`,
});

/** An engine with these policies active. */
export async function engineWith(
  files: PolicyFiles,
  extraChecks: readonly string[] = [],
): Promise<PolicyEngine> {
  const engine = new PolicyEngine({ extraChecks });
  engine.activate(await checkPolicies(files, { extraChecks, timeoutMs: 60_000 }), 1);
  return engine;
}
