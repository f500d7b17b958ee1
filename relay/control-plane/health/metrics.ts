import type { Services } from '../services.ts';
import type { Metric } from './health-server.ts';

/** What the control plane counts, for `/metrics`. */
export function healthMetrics({ tunnels, peers, feed, policy }: Services): Metric[] {
  const states = { granted: 0, open: 0, closed: 0 };
  for (const tunnel of tunnels.all()) states[tunnel.state] += 1;
  const gauge = (name: string, help: string, value: number): Metric => ({
    name,
    help,
    type: 'gauge',
    values: [{ value }],
  });
  return [
    {
      name: 'ztna_tunnels',
      help: 'Tunnels by state; granted ones are not open yet.',
      type: 'gauge',
      values: [
        { labels: { state: 'granted' }, value: states.granted },
        { labels: { state: 'open' }, value: states.open },
      ],
    },
    gauge('ztna_devices_online', 'Devices with a control channel.', peers.deviceCount()),
    gauge('ztna_connectors_online', 'Connectors with a control channel.', peers.connectors.size),
    gauge('ztna_data_planes_online', 'Data planes with a control channel.', peers.relays.size),
    gauge('ztna_revocation_position', 'Last position of the revocation log.', feed.head),
    gauge(
      'ztna_policy_version',
      'Version of the active policy; 0 denies everything.',
      policy.version,
    ),
  ];
}
