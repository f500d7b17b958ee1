import type { Scenario } from '../scenario.ts';
import { badLinkScenarios } from './bad-link.ts';
import { chaos } from './chaos.ts';
import { clockStep } from './clock-step.ts';
import { connectorKilled } from './connector-killed.ts';
import { controlPlaneKilled } from './control-plane-killed.ts';
import { controlPlaneFrozen, revokedDuringOutage } from './decision-age.ts';
import { diskFull } from './disk-full.ts';
import { partition } from './partition.ts';
import { dataPlaneKilled, relayKilled, relayKilledAlone } from './relay-killed.ts';
import { rollingRestart } from './rolling-restart.ts';
import { stampede } from './stampede.ts';
import { storeDown } from './store-down.ts';

/** In the order in which they are run. */
export const scenarios: readonly Scenario[] = [
  relayKilled,
  dataPlaneKilled,
  relayKilledAlone,
  connectorKilled,
  rollingRestart,
  storeDown,
  controlPlaneKilled,
  controlPlaneFrozen,
  revokedDuringOutage,
  partition,
  ...badLinkScenarios,
  stampede,
  clockStep,
  diskFull,
  chaos,
];
