import test from 'ava';
import fc from 'fast-check';
import { effectOf, type SignalEffect } from '../../../../relay/control-plane/signals/effect.ts';
import { eventTypes, parseEvent } from '../../../../relay/control-plane/signals/event.ts';
import { nextMark, type Mark, type Said } from '../../../../relay/control-plane/signals/marks.ts';
import { caep, risc, ssf } from './transmitter.ts';

const nowMs = 1_900_000_000_000;
const effect = (uri: string, payload: Record<string, unknown> = {}): SignalEffect =>
  effectOf(parseEvent(uri, payload, nowMs));

const cases: readonly (readonly [string, Record<string, unknown>, SignalEffect])[] = [
  [`${caep}session-revoked`, {}, { kind: 'end_sessions' }],
  [`${caep}token-claims-change`, { claims: { role: 'x' } }, { kind: 'sign_in_again' }],
  ...['revoke', 'update', 'delete'].map(
    (change) =>
      [
        `${caep}credential-change`,
        { credential_type: 'password', change_type: change },
        { kind: 'sign_in_again' },
      ] as const,
  ),
  [
    `${caep}credential-change`,
    { credential_type: 'fido2-platform', change_type: 'create' },
    { kind: 'none', why: 'credential_added' },
  ],
  [
    `${caep}assurance-level-change`,
    { namespace: 'NIST-AAL', current_level: 'nist-aal1', previous_level: 'nist-aal2' },
    { kind: 'step_up' },
  ],
  [
    `${caep}assurance-level-change`,
    { namespace: 'NIST-AAL', current_level: 'nist-aal2', previous_level: 'nist-aal1' },
    { kind: 'none', why: 'assurance_not_lower' },
  ],
  // It says that it rises, and shows that it falls.
  [
    `${caep}assurance-level-change`,
    {
      current_level: 'nist-aal1',
      previous_level: 'nist-aal2',
      change_direction: 'increase',
    },
    { kind: 'step_up' },
  ],
  [`${caep}assurance-level-change`, { current_level: 'bronze' }, { kind: 'step_up' }],
  [
    `${caep}assurance-level-change`,
    { current_level: 'gold', change_direction: 'increase' },
    { kind: 'none', why: 'assurance_not_lower' },
  ],
  [
    `${caep}device-compliance-change`,
    { previous_status: 'compliant', current_status: 'not-compliant' },
    { kind: 'restrict_device' },
  ],
  [`${caep}device-compliance-change`, { current_status: 'compliant' }, { kind: 'lift_device' }],
  [
    `${caep}risk-level-change`,
    { principal: 'USER', current_level: 'HIGH' },
    { kind: 'add_risk', of: 'user', points: 80 },
  ],
  [
    `${caep}risk-level-change`,
    { principal: 'DEVICE', current_level: 'MEDIUM' },
    { kind: 'add_risk', of: 'device', points: 40 },
  ],
  [
    `${caep}risk-level-change`,
    { principal: 'SESSION', current_level: 'LOW' },
    { kind: 'remove_risk', of: 'session' },
  ],
  [
    `${caep}risk-level-change`,
    { principal: 'TENANT', current_level: 'HIGH' },
    { kind: 'none', why: 'principal_not_ours' },
  ],
  [`${caep}session-established`, {}, { kind: 'none', why: 'noted' }],
  [`${risc}account-disabled`, { reason: 'hijacking' }, { kind: 'disable_user' }],
  [`${risc}account-purged`, {}, { kind: 'disable_user' }],
  [`${risc}account-enabled`, {}, { kind: 'none', why: 'an_administrator_enables' }],
  [`${risc}credential-compromise`, { credential_type: 'password' }, { kind: 'end_sessions' }],
  [`${risc}sessions-revoked`, {}, { kind: 'end_sessions' }],
  [`${risc}account-credential-change-required`, {}, { kind: 'sign_in_again' }],
  ...['identifier-changed', 'opt-in', 'opt-out-initiated', 'opt-out-effective'].map(
    (type) => [`${risc}${type}`, {}, { kind: 'none', why: 'noted' }] as const,
  ),
  [`${ssf}verification`, { state: 'abc' }, { kind: 'stream_verified', state: 'abc' }],
  [`${ssf}stream-updated`, { status: 'paused' }, { kind: 'stream_updated', status: 'paused' }],
  ['https://else.example.com/grant-access', {}, { kind: 'none', why: 'event_unknown' }],
];

for (const [uri, payload, expected] of cases) {
  test(`effectOf - ${uri.split('/').at(-1) ?? ''} ${JSON.stringify(payload)} is ${JSON.stringify(expected)}`, (t) => {
    t.deepEqual(effect(uri, payload), expected);
  });
}

test('parseEvent - an event happened when it says, in seconds or milliseconds, but never after it was told', (t) => {
  const at = (event_timestamp: number) =>
    parseEvent(`${caep}session-revoked`, { event_timestamp }, nowMs).happenedAtMs;
  t.is(at(nowMs / 1_000 - 60), nowMs - 60_000);
  t.is(at(nowMs - 60_000), nowMs - 60_000);
  t.is(at(nowMs / 1_000 + 3_600), nowMs);
});

/** What may be taken from somebody, as one number each: higher is less access. */
interface Access {
  readonly marks: Map<string, Mark>;
  restrictions: Set<string>;
  sessionsEnded: number;
  secondFactorsDropped: number;
  isDisabled: boolean;
}

const streams = ['a', 'b'] as const;

/** Any event type, known or not, with members that may or may not fit. */
const anyEvent = fc.record({
  stream: fc.constantFrom(...streams),
  uri: fc.constantFrom(...eventTypes, `${caep}access-granted`, 'constructor', '__proto__'),
  payload: fc.record({
    change_type: fc.constantFrom('create', 'revoke', 'update', 'delete'),
    credential_type: fc.constant('password'),
    claims: fc.constant({ admin: true }),
    current_level: fc.constantFrom('LOW', 'MEDIUM', 'HIGH', 'nist-aal1', 'nist-aal3'),
    previous_level: fc.constantFrom('LOW', 'HIGH', 'nist-aal2', undefined),
    change_direction: fc.constantFrom('increase', 'decrease', undefined),
    current_status: fc.constantFrom('compliant', 'not-compliant'),
    principal: fc.constantFrom('USER', 'DEVICE', 'SESSION', 'TENANT', '__proto__'),
    status: fc.constantFrom('enabled', 'disabled'),
    event_timestamp: fc.integer({ min: 1, max: nowMs / 1_000 + 100 }),
  }),
});

test('effects - whatever events come, access is never above what it is without any', (t) => {
  fc.assert(
    fc.property(fc.array(anyEvent, { maxLength: 24 }), (events) => {
      const access: Access = {
        marks: new Map(),
        restrictions: new Set(['administrator']), // what no stream has imposed
        sessionsEnded: 0,
        secondFactorsDropped: 0,
        isDisabled: false,
      };
      for (const { stream, uri, payload } of events) {
        let parsed;
        try {
          parsed = parseEvent(uri, payload, nowMs);
        } catch {
          continue; // refused: nothing happens
        }
        const before = structuredClone(access);
        apply(access, stream, effectOf(parsed), parsed.happenedAtMs);
        const other = stream === 'a' ? 'b' : 'a';
        // Nobody gets more, and no stream takes back what another one, or an administrator, has imposed.
        if (access.isDisabled < before.isDisabled) return false;
        if (access.sessionsEnded < before.sessionsEnded) return false;
        if (access.secondFactorsDropped < before.secondFactorsDropped) return false;
        if (!access.restrictions.has('administrator')) return false;
        if (before.restrictions.has(other) && !access.restrictions.has(other)) return false;
        for (const [key, mark] of before.marks) {
          if (mark.stream === other && access.marks.get(key)?.active !== mark.active) return false;
        }
        for (const { points } of access.marks.values()) if (points < 0 || points > 80) return false;
      }
      return true;
    }),
    { numRuns: 500 },
  );
  t.pass();
});

function apply(access: Access, stream: string, what: SignalEffect, happenedAtMs: number): void {
  const mark = (
    kind: Mark['kind'],
    subjectKind: Mark['subjectKind'],
    points: number,
    isActive: boolean,
  ) => {
    const key = [stream, kind, subjectKind].join(' ');
    const subjectId = 'one';
    const said = { stream, kind, subjectKind, subjectId, points, happenedAtMs, untilMs: nowMs };
    const next = nextMark(access.marks.get(key), { ...said, isActive });
    if (next) access.marks.set(key, next);
    return next !== undefined;
  };
  switch (what.kind) {
    case 'end_sessions':
    case 'sign_in_again':
      access.sessionsEnded += 1;
      return;
    case 'step_up':
      access.secondFactorsDropped += 1;
      return;
    case 'disable_user':
      access.isDisabled = true;
      return;
    case 'restrict_device':
      if (mark('device', 'device', 0, true)) access.restrictions.add(stream);
      return;
    case 'lift_device':
      if (mark('device', 'device', 0, false)) access.restrictions.delete(stream);
      return;
    case 'add_risk':
      mark('risk', what.of, what.points, true);
      return;
    case 'remove_risk':
      mark('risk', what.of, 0, false);
      return;
    case 'none':
    case 'stream_verified':
    case 'stream_updated':
      return;
  }
}

test('nextMark - what a stream says of the past changes nothing that it said later', (t) => {
  const said = {
    ...{ stream: 'a', kind: 'device', subjectKind: 'device', subjectId: 'd', points: 0 },
    ...{ untilMs: nowMs },
  } as Omit<Said, 'isActive' | 'happenedAtMs'>;
  const first = nextMark(undefined, { ...said, isActive: true, happenedAtMs: 100 });
  t.is(first?.active, 1);
  t.is(nextMark(first, { ...said, isActive: false, happenedAtMs: 99 }), undefined);
  const lifted = nextMark(first, { ...said, isActive: false, happenedAtMs: 101 });
  t.is(lifted?.active, 0);
  t.is(nextMark(lifted, { ...said, isActive: true, happenedAtMs: 100 }), undefined);
  t.is(nextMark(undefined, { ...said, isActive: false, happenedAtMs: 1 }), undefined);
});
