import { builtInChecks, ZtnaError } from '../../../protocol/index.ts';
import { isExtraCheckName } from './context.ts';

/**
 * The Cedar schema that policies are validated against: what they may name and which type each fact has.
 * Throws ERR_CONFIG_INVALID for an extra check whose name is taken or not a plain word.
 */
export function policySchema(extraChecks: readonly string[] = []): string {
  for (const check of extraChecks) {
    if (!isExtraCheckName(check) || extraChecks.indexOf(check) !== extraChecks.lastIndexOf(check)) {
      throw new ZtnaError('ERR_CONFIG_INVALID', {
        message: `a posture check cannot be called ${JSON.stringify(check)}`,
        hint: 'use a name of its own, of lower-case letters, digits and underscores',
      });
    }
  }
  const checks = [...builtInChecks, ...extraChecks];
  return `// Who asks.
entity Group;
entity User in [Group];

// From what, and for what. Tags of an app are its labels.
entity Device;
entity Site;
entity App in [Site] tags String;

type Posture = {
${checks.map((check) => `  ${check}: String, // "on", "off" or "unknown"`).join('\n')}
  os_version: String,
  os_version_number: Long, // 14.5.1 is 14005001
  os_build: Long, // the third part of the version
  client_version: String,
  client_version_number: Long,
  age_seconds: Long,
};

action connect appliesTo {
  principal: [User],
  resource: [App],
  context: {
    device: {
      entity: Device,
      id: String,
      platform: String, // "linux", "darwin" or "win32"
      hostname: String,
      enrolled_days: Long,
    },
    posture: Posture,
    authentication: {
      mfa: Bool,
      phishing_resistant: Bool,
      methods: Set<String>, // RFC 8176, or "password", "totp", "recovery", "passkey"; of services "key", "token"
      provider: String, // "local" for this deployment's own users, "service" for services
      acr: String, // as the provider says; "" for none
      age_seconds: Long,
    },
    network: { address: ipaddr, country: String },
    time: { epoch_seconds: Long, date: String, hour: Long, minute: Long, weekday: Long }, // Monday is 1
    risk: { score: Long, factors: Set<String> },
  },
};
`;
}
