import anyTest, { type TestFn } from 'ava';
import { recheckSessions } from '../../../../../relay/control-plane/identity/oidc/recheck.ts';
import { missingServer } from '../../../../support/postgresql.ts';
import { stopOwnPostgres } from '../../../../support/shared-postgresql.ts';
import { OidcServer } from '../../../../support/oidc-server.ts';
import { fileEngine } from '../../fixture.ts';
import { Rig, type ConnectorPeer } from '../../service/rig.ts';
import {
  askSignIn,
  finishSignIn,
  followToCommand,
  hastenChecks,
  ofProvider,
  openTunnel,
  publishWiki,
  settingsOf,
} from './oidc-rig.ts';

interface Context {
  first: Rig;
  second: Rig;
  server: OidcServer;
  connector: ConnectorPeer;
}
const missing = missingServer();
const all = anyTest as TestFn<Context>;
const test = missing === undefined ? all.serial : all.skip;
const why = missing === undefined ? '' : ` (skipped: ${missing})`;
fileEngine.isPostgres = true;

const personOf = (name: string, groups: readonly string[] = ['staff']) => ({
  claims: { email: `${name}@example.com`, groups },
});

if (missing === undefined) {
  all.before('two control planes on one store, with one provider', async (t) => {
    t.timeout(120_000);
    const first = await Rig.start();
    first.version = 4;
    const second = await Rig.join(first);
    const server = await OidcServer.start({
      people: { ann: personOf('ann'), ben: personOf('ben') },
      redirectUris: [first, second].map(({ url }) => `${url}/oidc/idp/callback`),
      logoutUri: `${second.url}/oidc/idp/logout`,
    });
    const added = await first.admin('provider.add', settingsOf(server));
    t.deepEqual(
      added['redirectUris'],
      [first, second].map(({ url }) => `${url}/oidc/idp/callback`),
    );
    t.context = { first, second, server, connector: await publishWiki({ rig: first }) };
  });
  all.after.always('stop', async (t) => {
    const { first, second, server } = t.context as Partial<Context>;
    await server?.stop();
    await second?.stop();
    await first?.stop();
    await stopOwnPostgres();
  });
}

test(`openid - a sign-in that is begun at one control plane is finished at another${why}`, async (t) => {
  const { first, second, server } = t.context;
  const device = await ofProvider(first, 'ann@example.com', 'idp');
  const asked = await askSignIn(device, { provider: 'idp' });
  const { url } = await followToCommand(server.browserOf('ann'), asked.url);
  const elsewhere = await second.connectDevice(device.identity);
  const done = await finishSignIn(elsewhere, asked, url.searchParams.get('ticket'));
  t.is(done.type, 'signed_in');
});

test(`recheck - what another control plane finds out ends tunnels here${why}`, async (t) => {
  const { first, second, server, connector } = t.context;
  const device = await ofProvider(first, 'ben@example.com', 'idp');
  const browser = server.browserOf('ben');
  const signIn = async () => {
    const asked = await askSignIn(device, { provider: 'idp' });
    const { url } = await followToCommand(browser, asked.url);
    t.is((await finishSignIn(device, asked, url.searchParams.get('ticket'))).type, 'signed_in');
    return openTunnel({ rig: first }, connector, device);
  };
  const ended = (tunnel: string) =>
    device.find((message) =>
      message.type === 'tunnel_ended' && message.tunnel === tunnel ? message.reason : undefined,
    );
  const one = await signIn();
  server.people.set('ben', personOf('ben', []));
  await hastenChecks({ rig: second });
  await recheckSessions(second.plane.services);
  // Whichever is first: the one that asked the provider, or the tunnel's own, which saw the change.
  t.true(['group_changed', 'policy_denied'].includes(await ended(one)));

  server.people.set('ben', personOf('ben'));
  const other = await signIn();
  await server.logOut(`${server.issuer}/session/end`, browser); // told to the second one
  t.is(await ended(other), 'provider_logout');
});
