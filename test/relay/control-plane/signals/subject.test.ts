import test from 'ava';
import { newId } from '../../../../protocol/index.ts';
import { startSession } from '../../../../relay/control-plane/identity/index.ts';
import {
  emptyMap,
  findSubject,
  parseSubject,
  parseSubjectMap,
  userNameOf,
  type SubjectRules,
} from '../../../../relay/control-plane/signals/subject.ts';
import type { Device, Session, Store, User } from '../../../../relay/control-plane/store/index.ts';
import { addUser, enrolDevice, onEveryStore, openTestStore, startMs } from '../fixture.ts';
import { issuer } from './transmitter.ts';

const everyStore = onEveryStore(test);

const rules: SubjectRules = {
  issuer,
  subjects: { email: 'local_part', domains: ['example.com'], mapFile: null },
  map: emptyMap,
};
const email = (text: string) => ({ format: 'email', email: text }) as const;
const opaque = (id: string) => ({ format: 'opaque', id }) as const;

async function someone(
  store: Store,
  name: string,
): Promise<{ user: User; device: Device; session: Session }> {
  const user = await addUser(store, name);
  const device = await enrolDevice(store, user.id);
  const { session } = await store.write((tx) =>
    startSession(tx, {
      ...{ userId: user.id, deviceId: device.id, provider: 'local', methods: ['password'] },
      limits: { idleMs: 1_000, absoluteMs: 1_000 },
      nowMs: startMs,
    }),
  );
  return { user, device, session };
}

test('userNameOf - an address names a user as configured, of the domains that count', (t) => {
  const as = (mode: 'user_name' | 'local_part' | null, domains: string[], address: string) =>
    userNameOf(email(address), { ...rules, subjects: { email: mode, domains, mapFile: null } });
  t.is(as('local_part', ['example.com'], 'Alice@Example.com'), 'alice');
  t.is(as('local_part', ['example.com'], 'alice@evil.com'), undefined);
  t.is(as('local_part', ['example.com'], 'alice@example.com@evil.com'), undefined);
  t.is(as('user_name', [], 'alice@example.com'), 'alice@example.com');
  t.is(as('user_name', ['example.com'], 'alice@evil.com'), undefined);
  t.is(as(null, [], 'alice@example.com'), undefined);
  t.is(as('local_part', ['example.com'], '@example.com'), undefined);
});

test('userNameOf - the map names users by address, issuer and subject, or opaque id', (t) => {
  const map = parseSubjectMap(
    JSON.stringify({
      users: {
        'bob@else.org': 'bob',
        'https://else sub-1': 'carol',
        'sub-2': 'dave',
        'opaque-3': 'eve',
      },
    }),
    'map.json',
  );
  const named = { ...rules, map };
  t.is(userNameOf(email('bob@else.org'), named), 'bob');
  t.is(userNameOf({ format: 'iss_sub', iss: 'https://else', sub: 'sub-1' }, named), 'carol');
  t.is(userNameOf({ format: 'iss_sub', iss: issuer, sub: 'sub-2' }, named), 'dave');
  // The bare subject is the stream's own issuer's: another one may use the same.
  t.is(userNameOf({ format: 'iss_sub', iss: 'https://else', sub: 'sub-2' }, named), undefined);
  t.is(userNameOf(opaque('opaque-3'), named), 'eve');
});

test('parseSubjectMap - refuses what is no map, and devices that are no ids of ours', (t) => {
  for (const text of ['', '7', '{"user":{}}', '{"devices":{"x":"laptop"}}', '{"users":{"x":1}}']) {
    t.throws(() => parseSubjectMap(text, 'map.json'), { code: 'ERR_CONFIG_INVALID' }, text);
  }
});

test('parseSubject - refuses what says not whom it is about', (t) => {
  for (const value of [
    ...[undefined, null, 'alice', [], {}, { format: 'email' }, { format: 'opaque', id: 7 }],
    ...[
      { format: 'iss_sub', iss: 'x' },
      { format: 'complex', user: 'alice' },
    ],
    { format: 'complex', user: { format: 'email' } },
  ]) {
    t.throws(() => parseSubject(value), { code: 'ERR_STATEMENT_REFUSED' }, JSON.stringify(value));
  }
});

everyStore('findSubject - finds users, devices and sessions by ids of our own', async (t) => {
  const store = await openTestStore(t);
  const { user, device, session } = await someone(store, 'alice');
  const find = (value: unknown) => findSubject(store.db, parseSubject(value), rules);
  t.is((await find(email('alice@example.com'))).user?.id, user.id);
  t.is((await find(opaque(device.id))).device?.id, device.id);
  t.is((await find(opaque(session.id))).session?.id, session.id);
  const all = await find({
    format: 'complex',
    user: email('alice@example.com'),
    device: opaque(device.id),
    session: opaque(session.id),
    tenant: opaque('t1'),
  });
  t.deepEqual([all.user?.id, all.device?.id, all.session?.id], [user.id, device.id, session.id]);
});

everyStore('findSubject - names nobody whom it does not know, or by a host name', async (t) => {
  const store = await openTestStore(t);
  await someone(store, 'alice');
  const nobody = { user: null, device: null, session: null };
  const find = (value: unknown) => findSubject(store.db, parseSubject(value), rules);
  for (const value of [
    ...[email('mallory@example.com'), opaque('alice'), opaque('laptop'), opaque(newId('device'))],
    ...[opaque(newId('session')), { format: 'phone_number', phone_number: '+1' }],
    ...[{ format: 'complex' }, { format: 'complex', application: opaque('x') }],
    { format: 'complex', device: { format: 'opaque', id: 'laptop' } },
    { format: 'complex', user: { format: 'did', url: 'did:x' }, tenant: opaque('t') },
  ]) {
    t.deepEqual(await find(value), nobody, JSON.stringify(value));
  }
});

everyStore('findSubject - parts that contradict each other name nobody', async (t) => {
  const store = await openTestStore(t);
  const alice = await someone(store, 'alice');
  const bob = await someone(store, 'bob');
  const nobody = { user: null, device: null, session: null };
  const find = (value: object) =>
    findSubject(store.db, parseSubject({ format: 'complex', ...value }), rules);
  const user = email('alice@example.com');
  t.deepEqual(await find({ user, device: opaque(bob.device.id) }), nobody);
  t.deepEqual(await find({ user, session: opaque(bob.session.id) }), nobody);
  t.deepEqual(await find({ user, device: opaque(newId('device')) }), nobody);
  t.deepEqual(
    await find({ user: email('mallory@example.com'), device: opaque(alice.device.id) }),
    nobody,
  );
});

everyStore(
  'findSubject - a session that is another system’s leaves the rest of the subject',
  async (t) => {
    const store = await openTestStore(t);
    const { user } = await someone(store, 'alice');
    const found = await findSubject(
      store.db,
      parseSubject({
        format: 'complex',
        user: email('alice@example.com'),
        session: opaque('idp-session-1'),
        device: { format: 'iss_sub', iss: issuer, sub: 'their-device' },
      }),
      rules,
    );
    t.deepEqual([found.user?.id, found.device, found.session], [user.id, null, null]);
  },
);
