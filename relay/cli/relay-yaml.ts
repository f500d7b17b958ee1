/** The relay.yaml that `init` writes: what must be said, and what can be, with its default. */
export function relayConfigText(url: string, storeUrl: string | null = null): string {
  return `# How agents and connectors reach this relay. Their codes and certificates name it.
url: ${url}

# Where it listens; by default on every address, on the port of the url.
#listen: 0.0.0.0:443

# /livez, /readyz and /metrics, on loopback only.
#adminListen: 127.0.0.1:9080

# Where the state is kept: sqlite, in this directory, or a PostgreSQL server that several control planes share:
# postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE. This file is for its owner alone.
store: ${storeUrl === null ? 'sqlite' : JSON.stringify(storeUrl)}

# How machines are enrolled: by an administrator's code alone (invite), or also by their users themselves, who sign in at
# ${url}/enrol, at once (sso) or once an administrator approves each (sso-approve).
#enrolment:
#  mode: invite
#  maxDevicesPerUser: 3

# When a sign-in ends: unused for so long, and at the latest.
#session:
#  idle: 12h
#  absolute: 24h

# How often each open tunnel is verified again (1s to 20s). It may move bytes for max(5s, 3 × interval) at most
# without a new verdict. A tunnel that lost its path is held for so long (1s to 1h), with its connections.
#verification:
#  interval: 20s
#  holdFor: 5m

# What devices tell of themselves counts for so long (3s to 1h); they say it three times as often. Checks beside the
# usual ones: policies read them as context.posture.ID, "on" where they pass. Change them, then restart.
#posture:
#  maxAge: 45s
#  checks:
#    - { id: edr, process: falcon-sensor }
#    - { id: corp_file, file: /etc/corp/enrolled }
#    - { id: no_torrent, noProcess: qbittorrent }

# How long tunnels may take to move to another relay when this one stops (1s to 10m).
#drainFor: 25s

# Where addresses lie, for the risk score: MaxMind files (.mmdb), which are read again when they are replaced.
#risk:
#  geo:
#    city: GeoLite2-City.mmdb
#    asn: GeoLite2-ASN.mmdb

# The certificate, with its chain, that browsers and other systems are shown on the relay's port; read again when it is
# replaced. Agents and connectors always see one of the relay's own CA.
#tls:
#  cert: /etc/ztna/relay.crt
#  key: /etc/ztna/relay.key

# The domain that passkeys are for, where control planes have hosts of their own below it; by default the url's host.
# Another one asks every user for new passkeys.
#passkeys:
#  domain: example.com

# Apps with an interval or a hold of their own.
#apps:
#  NAME:
#    verification:
#      interval: 5s

# Security events from an identity provider or a device manager, and those that others are told of.
#signals:
#  receive:
#    - name: idp
#      issuer: https://idp.example.com
#      audience: ${url}
#      keys: https://idp.example.com/jwks
#      push: { token: file:/etc/ztna/idp-token }
#      subjects: { email: local_part, domains: [example.com] }
#  transmit:
#    - { name: siem, url: https://siem.example.com/events, audience: siem, token: file:/etc/ztna/siem-token }
#  webhooks:
#    - { name: chat, url: https://chat.example.com/hook, secret: file:/etc/ztna/hook-secret }
`;
}
