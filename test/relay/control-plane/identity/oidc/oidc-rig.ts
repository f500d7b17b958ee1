import { OidcServer, type OidcServerOptions } from '../../../../support/oidc-server.ts';
import type { Rig } from '../../service/rig.ts';

/** What `provider add` is given for a provider of tests. */
export function settingsOf(
  server: OidcServer,
  more: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  return {
    name: 'idp',
    issuer: server.issuer,
    clientId: server.clientId,
    secret: server.clientSecret,
    title: 'The test directory',
    scopes: ['openid', 'profile', 'email', 'offline_access'],
    groupsClaim: 'groups',
    ca: server.caPem,
    allowPrivate: true,
    ...more,
  };
}

/** A provider that has a relay's addresses registered for these names. */
export async function providerFor(
  rig: Rig,
  options: OidcServerOptions = {},
  names: readonly string[] = ['idp'],
): Promise<OidcServer> {
  const redirectUris = names.map((name) => `${rig.url}/oidc/${name}/callback`);
  return OidcServer.start({ redirectUris, ...options });
}
