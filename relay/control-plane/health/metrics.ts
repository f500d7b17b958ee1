import { connectorsServing, isHealthyAt } from '../grant/choose-connector.ts';
import type { Services } from '../services.ts';
import { dataPlaneMetrics } from '../../data-plane/health.ts';
import type { Metric } from '../../health-server.ts';

/** What the control plane counts, and the data plane beside it, for `/metrics`. */
export async function healthMetrics(services: Services): Promise<Metric[]> {
  const { tunnels, peers, feed, policy } = services;
  const states = { granted: 0, open: 0, detached: 0, closed: 0 };
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
        { labels: { state: 'detached' }, value: states.detached },
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
    {
      name: 'ztna_revocation_seconds',
      help: 'From the decision to the last byte that passed, by what set it off and who enforced it.',
      type: 'histogram',
      values: services.receipts.seconds.rows(),
    },
    ...(await appMetrics(services)),
    await providerMetric(services),
    ...(services.dataPlaneCounts ? dataPlaneMetrics(services.dataPlaneCounts) : []),
  ];
}

/** Connectors of each app. Read from the store: names that connectors make up are none of ours. */
async function appMetrics(services: Services): Promise<Metric[]> {
  const apps = await services.store.db
    .selectFrom('apps')
    .select(['name', 'siteId'])
    .orderBy('name')
    .execute();
  const serving: { labels: { app: string }; value: number }[] = [];
  const healthy: typeof serving = [];
  for (const app of apps) {
    const labels = { app: app.name };
    const connectors = await connectorsServing(services, app);
    serving.push({ labels, value: connectors.length });
    const count = connectors.filter((connector) => isHealthyAt(connector, app.name)).length;
    healthy.push({ labels, value: count });
  }
  return [
    {
      name: 'ztna_app_connectors',
      help: 'Connectors that serve the app and take new tunnels.',
      type: 'gauge',
      values: serving,
    },
    {
      name: 'ztna_app_connectors_healthy',
      help: 'Those of them whose checks find the app well, or that do not check it.',
      type: 'gauge',
      values: healthy,
    },
  ];
}

/** Sessions of each provider about which it could not be asked again. */
async function providerMetric({ store }: Services): Promise<Metric> {
  const providers = await store.db.selectFrom('providers').select('name').orderBy('name').execute();
  const counts = await store.db
    .selectFrom('providerGrants')
    .select((eb) => ['provider', eb.fn.countAll<number | string>().as('count')])
    .where('unreachableSinceMs', 'is not', null)
    .groupBy('provider')
    .execute();
  return {
    name: 'ztna_provider_unreachable_sessions',
    help: 'Sessions that go on although their identity provider cannot be asked about them.',
    type: 'gauge',
    values: providers.map(({ name }) => ({
      labels: { provider: name },
      value: Number(counts.find(({ provider }) => provider === name)?.count ?? 0),
    })),
  };
}
