import type { Scenario } from '../scenario.ts';
import { relayKilled, relayKilledAlone } from './relay-killed.ts';

/** In the order in which they are run. */
export const scenarios: readonly Scenario[] = [relayKilled, relayKilledAlone];
