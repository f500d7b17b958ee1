import type { Scenario } from '../scenario.ts';
import { badLinkScenarios } from './bad-link.ts';
import { connectorKilled } from './connector-killed.ts';
import { controlPlaneKilled } from './control-plane-killed.ts';
import { relayKilled, relayKilledAlone } from './relay-killed.ts';

/** In the order in which they are run. */
export const scenarios: readonly Scenario[] = [
  relayKilled,
  relayKilledAlone,
  connectorKilled,
  controlPlaneKilled,
  ...badLinkScenarios,
];
