import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import {
  parseEnrolmentCode,
  verifyRelayList,
  ZtnaError,
  type Bundle,
  type RelayList,
} from '../../../../protocol/index.ts';
import { dialTls, enrol, type Identity } from '../../../../protocol/host/index.ts';
import { offerKeys } from '../../../../relay/cli/join-relay.ts';
import { createAuthority } from '../../../../relay/control-plane/authority/index.ts';
import { Rig } from './rig.ts';

async function start(t: ExecutionContext): Promise<Rig> {
  const rig = await Rig.start();
  rig.version = 2;
  t.teardown(() => rig.stop());
  return rig;
}

async function inviteRelay(
  rig: Rig,
  name: string,
  url: string,
  isControl = false,
): Promise<string> {
  const args = { name, url, isControl, ttlMs: 60_000 };
  return (await rig.admin<{ code: string }>('invite.relay', args)).code;
}

async function enrolRelay(code: string, relay?: 'data-plane' | 'control-plane'): Promise<Identity> {
  const { identity } = await enrol({
    code: parseEnrolmentCode(code),
    hostname: 'relay',
    platform: 'linux',
    password: null,
    expectRole: 'data-plane',
    ...(relay && { relay }),
  });
  return identity;
}

type AnyPeer = {
  readonly identity: { readonly bundle: Bundle };
  readonly messages: readonly { readonly type: string }[];
};

/** The lists that a peer was told so far. */
function listsOf({ identity, messages }: AnyPeer): RelayList[] {
  return messages.flatMap((message) =>
    message.type === 'relays' && 'statement' in message
      ? [verifyRelayList(String(message.statement), identity.bundle)]
      : [],
  );
}

/** The first list told to a peer that `matches`. */
async function listWhere(peer: AnyPeer, matches: (list: RelayList) => boolean): Promise<RelayList> {
  for (;;) {
    const found = listsOf(peer).find(matches);
    if (found) return found;
    await wait(5);
  }
}

const urlsOf = ({ relays }: RelayList) => relays.map(({ url }) => url);

test.serial(
  'relays - everyone of version 2 is told behind the welcome and at each change',
  async (t) => {
    const rig = await start(t);
    const connector = await rig.connector('office', ['wiki']);
    const device = await rig.device('alice');
    const relay = await rig.relay();
    const first = await listWhere(connector, () => true);
    t.deepEqual(
      first.relays.map(({ url, isControl, isDraining }) => ({ url, isControl, isDraining })),
      [{ url: rig.url, isControl: true, isDraining: false }],
    );
    await enrolRelay(await inviteRelay(rig, 'b', 'https://b.example.com:443'));
    for (const peer of [connector, device, relay]) {
      const next = await listWhere(peer, (list) => list.relays.length === 2);
      t.true(next.version > first.version);
      t.true(urlsOf(next).includes('https://b.example.com:443'));
    }
    rig.version = 1;
    const old = await rig.connector('old', ['db']);
    await old.completeTo(0);
    t.deepEqual(listsOf(old), []);
  },
);

test.serial('relays - the control plane’s certificate names the host of each', async (t) => {
  const rig = await start(t);
  const device = await rig.device('alice');
  const identity = await enrolRelay(await inviteRelay(rig, 'b', 'https://b.example.com:8443'));
  t.truthy(new X509Certificate(identity.certificatePem).checkHost('b.example.com'));
  for (;;) {
    const socket = await dialTls({
      url: rig.url,
      alpn: 'ztna-control/1',
      identity: device.identity,
      trust: { authorities: device.identity.bundle.authorities, role: 'control-plane' },
    });
    const names = socket.getPeerCertificate().subjectaltname ?? '';
    socket.destroy();
    if (names.includes('DNS:b.example.com')) break;
    await wait(20);
  }
  t.pass();
});

test.serial(
  'relays - a code serves once, and a name or address that is taken gets none',
  async (t) => {
    const rig = await start(t);
    const code = await inviteRelay(rig, 'b', 'https://b.example.com:443');
    await enrolRelay(code);
    await t.throwsAsync(enrolRelay(code), { code: 'ERR_IDENTITY_CODE_USED' });
    for (const [name, url] of [
      ['b', 'https://c.example.com:443'],
      ['c', 'https://b.example.com:443'],
      ['c', rig.url],
    ] as const) {
      await t.throwsAsync(inviteRelay(rig, name, url), { code: 'ERR_CONFIG_EXISTS' });
    }
    await t.throwsAsync(inviteRelay(rig, 'c', 'http://c.example.com'), {
      code: 'ERR_CONFIG_USAGE',
    });
    const rows = await rig.admin<{ kind: string; subject: string; state: string }[]>('invite.list');
    t.like(rows[0], { kind: 'relay', subject: 'b', state: 'used' });
    await rig.admin('relay.remove', { id: 'b' });
    await enrolRelay(await inviteRelay(rig, 'b', 'https://b.example.com:443'));
  },
);

test.serial(
  'relays - a code of another kind makes no relay, and one of a relay no device',
  async (t) => {
    const rig = await start(t);
    const code = await inviteRelay(rig, 'b', 'https://b.example.com:443');
    await t.throwsAsync(rig.enrolConnectorWith(code), {
      instanceOf: ZtnaError,
      code: 'ERR_IDENTITY_CODE_REFUSED',
    });
  },
);

test.serial(
  'relays - a code for a control plane makes no data plane, names the right command and can still be used, and the other way round',
  async (t) => {
    const rig = await start(t);
    const control = await inviteRelay(rig, 'b', 'https://b.example.com:443', true);
    const error = await t.throwsAsync<ZtnaError>(enrolRelay(control, 'data-plane'));
    t.is(error.code, 'ERR_IDENTITY_CODE_REFUSED');
    t.regex(error.message, /ztna-relay init --join/);
    t.is((await enrolRelay(control, 'control-plane')).role, 'data-plane');
    const alone = await inviteRelay(rig, 'c', 'https://c.example.com:443');
    const other = await t.throwsAsync<ZtnaError>(enrolRelay(alone, 'control-plane'));
    t.regex(other.message, /ztna-relay run --data-plane/);
    t.is((await enrolRelay(alone, 'data-plane')).role, 'data-plane');
  },
);

test.serial(
  'relays - one that may join counts as a data plane until a control plane has started there',
  async (t) => {
    const rig = await start(t);
    const connector = await rig.connector('office', ['wiki']);
    await enrolRelay(await inviteRelay(rig, 'b', 'https://b.example.com:443', true));
    const list = await listWhere(connector, ({ relays }) => relays.length === 2);
    t.deepEqual(
      list.relays.filter(({ isControl }) => isControl).map(({ url }) => url),
      [rig.url],
    );
  },
);

test.serial(
  'relays - one that drains is listed so until its next process says hello',
  async (t) => {
    const rig = await start(t);
    const connector = await rig.connector('office', ['wiki']);
    const relay = await rig.relay();
    relay.channel.send({ type: 'draining' });
    const isDraining = ({ relays }: RelayList) => relays[0]?.isDraining === true;
    const draining = await listWhere(connector, isDraining);
    relay.channel.close();
    await rig.relay();
    await listWhere(connector, (list) => list.version > draining.version && !isDraining(list));
    t.pass();
  },
);

test.serial(
  'relays - one that is removed loses its channel and its place, the one with this control plane stays',
  async (t) => {
    const rig = await start(t);
    const connector = await rig.connector('office', ['wiki']);
    const identity = await enrolRelay(await inviteRelay(rig, 'b', 'https://b.example.com:443'));
    const relay = await rig.relayAs(identity);
    t.like(await rig.admin('relay.show', { id: 'b' }), { online: true, controlPlane: false });
    const { version } = await listWhere(connector, ({ relays }) => relays.length === 2);
    await rig.admin('relay.remove', { id: 'b' });
    t.is((await relay.channel.closed).code, 'ERR_IDENTITY_REVOKED');
    await listWhere(connector, (list) => list.version > version && list.relays.length === 1);
    await t.throwsAsync(rig.relayAs(identity), { code: 'ERR_IDENTITY_REVOKED' });
    const own = await rig.admin<{ name: string }[]>('relay.list');
    t.is(own.length, 1);
    await t.throwsAsync(rig.admin('relay.remove', { id: own[0]?.name }), {
      code: 'ERR_CONFIG_USAGE',
    });
  },
);

test.serial(
  'relay remove - leaves no welcome to a relay that was being greeted meanwhile',
  async (t) => {
    const rig = await start(t);
    await rig.device('alice');
    await rig.admin('user.disable', { name: 'alice' }); // an entry that the greeting reads
    const identity = await enrolRelay(await inviteRelay(rig, 'b', 'https://b.example.com:443'));
    const { revocations, peers } = rig.plane.services;
    const since = revocations.since.bind(revocations);
    revocations.since = async (...args) => {
      revocations.since = since;
      await rig.admin('relay.remove', { id: 'b' }); // once it was found enrolled, before it is welcome
      return since(...args);
    };
    const code = await rig.relayAs(identity).then(
      async ({ channel }) => (await channel.closed).code,
      (error: unknown) => (error as ZtnaError).code,
    );
    t.is(code, 'ERR_IDENTITY_REVOKED');
    t.false(peers.relays.has(identity.id));
  },
);

test.serial('join - refuses a CA that is not valid yet, or not for long', async (t) => {
  const rig = await start(t);
  const identity = await enrolRelay(
    await inviteRelay(rig, 'b', 'https://b.example.com:443', true),
    'control-plane',
  );
  const payload = Buffer.from(identity.bundle.statement.split('.')[2] ?? '', 'base64url');
  const { root } = JSON.parse(payload.toString()) as { root: string };
  const dayMs = 86_400_000;
  const offer = async (nowMs: number): Promise<Bundle> => {
    const directory = await mkdtemp(join(tmpdir(), 'ztna-join-'));
    t.teardown(() => rm(directory, { recursive: true, force: true }));
    const key = Buffer.from(root, 'base64url');
    const { bundle } = await offerKeys(
      identity,
      await createAuthority({ directory, nowMs, root: key }),
    );
    return bundle;
  };
  for (const wrongByMs of [2 * dayMs, -30 * 365 * dayMs]) {
    const error = await t.throwsAsync<ZtnaError>(offer(Date.now() + wrongByMs));
    t.is(error.code, 'ERR_IDENTITY_KEY_REFUSED');
    t.regex(error.message, /clock/);
  }
  t.is((await offer(Date.now())).authorities.length, 2);
});
