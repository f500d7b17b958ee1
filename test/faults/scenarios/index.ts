import type { Scenario } from '../scenario.ts';
import { badLinkScenarios } from './bad-link.ts';
import { clockStep } from './clock-step.ts';
import { connectorKilled } from './connector-killed.ts';
import { controlPlaneKilled } from './control-plane-killed.ts';
import { controlPlaneFrozen, revokedDuringOutage } from './decision-age.ts';
import { diskFull } from './disk-full.ts';
import { partition } from './partition.ts';
import { relayKilled, relayKilledAlone } from './relay-killed.ts';
import { stampede } from './stampede.ts';

/** In the order in which they are run. */
export const scenarios: readonly Scenario[] = [
  relayKilled,
  relayKilledAlone,
  connectorKilled,
  controlPlaneKilled,
  controlPlaneFrozen,
  revokedDuringOutage,
  partition,
  ...badLinkScenarios,
  stampede,
  clockStep,
  diskFull,
];
