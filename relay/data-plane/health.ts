import type { DataPlaneCounts } from '../child.ts';
import type { Metric } from '../health-server.ts';

/** What a data plane counts, for `/metrics`. */
export function dataPlaneMetrics(counts: DataPlaneCounts): Metric[] {
  const gauge = (name: string, help: string, value: number): Metric => ({
    name,
    help,
    type: 'gauge',
    values: [{ value }],
  });
  return [
    gauge('ztna_data_plane_connections', 'Open TCP connections of every kind.', counts.connections),
    gauge('ztna_data_plane_tunnels', 'Paths of tunnels through this relay.', counts.tunnels),
    gauge(
      'ztna_data_plane_connectors',
      'Connectors with idle sockets at this relay.',
      counts.connectors,
    ),
    gauge(
      'ztna_data_plane_control_planes',
      'Control planes to which a channel is open.',
      counts.controlPlanes,
    ),
  ];
}
