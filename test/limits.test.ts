import test from 'ava';
import { maxStreamsPerTunnel, maxTunnelsPerDevice } from '../connector/limits.ts';
import { defaultTunnelLimits } from '../protocol/tunnel-limits.ts';
import { defaultLimits } from '../relay/control-plane/settings.ts';
import { limits as dataPlane } from '../relay/data-plane/limits.ts';

test('limits - the control plane’s on tunnels is the lowest, so that people are told it with a hint', (t) => {
  const { tunnelsPerDevice, channelsPerDevice } = defaultLimits;
  t.true(tunnelsPerDevice < maxTunnelsPerDevice);
  t.true(tunnelsPerDevice < dataPlane.tunnelsPerDevice);
  t.true(tunnelsPerDevice < channelsPerDevice);
});

test('limits - a client stops opening streams before the connector refuses them', (t) => {
  t.true(defaultTunnelLimits.streams < maxStreamsPerTunnel);
});
