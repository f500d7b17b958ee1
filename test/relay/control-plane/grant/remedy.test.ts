import test from 'ava';
import { remedyOf } from '../../../../relay/control-plane/grant/remedy.ts';

const asked = (what: string) => ({
  verdict: 'deny' as const,
  reasons: [],
  errors: [],
  readsTime: false,
  policyVersion: 1,
  permitting: [],
  forbidding: [],
  wouldPermit: ['careful'],
  remedies: ['step_up' as const],
  conditions: [{ what, actual: 'false', required: 'true' }],
});

const about = (provider: string) => ({
  posture: null,
  nowMs: 0,
  session: { provider } as never,
});

for (const [what, provider, reason, fix] of [
  ['authentication.mfa', 'local', 'step_up_needed', /one-time password: ztna login \(/],
  ['authentication.phishing_resistant', 'local', 'passkey_needed', /ztna mfa add --passkey/],
  [
    'authentication.mfa',
    'corp',
    'step_up_needed',
    /second factor at corp: ztna login --provider corp$/,
  ],
  [
    'authentication.phishing_resistant',
    'corp',
    'passkey_needed',
    /security key at corp: ztna login --provider corp$/,
  ],
] as const) {
  test(`remedyOf - ${what} of a user of ${provider} is mended where that user’s factors are`, (t) => {
    const remedy = remedyOf(asked(what), about(provider));
    t.is(remedy?.reason, reason);
    t.is(remedy?.code, 'ERR_IDENTITY_OTP_NEEDED');
    t.regex(remedy?.fix ?? '', fix);
  });
}
