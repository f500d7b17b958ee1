import * as v from 'valibot';
import type { Bundle } from './bundle.ts';
import { idSchema } from './id.ts';
import { natural, text } from './schema.ts';
import { verifyStatement } from './statement.ts';

/** The most relays of one deployment. */
export const maxRelays = 64;

/**
 * Every relay of the deployment: kind `relays`, by a grant key. `version` only rises; whoever holds a list keeps the
 * highest. `isControl` says that a control plane is there too: any relay hands control channels on to one, but only
 * such a one answers by itself. One that drains takes no new tunnels.
 */
export const relayListSchema = v.strictObject({
  version: natural,
  relays: v.pipe(
    v.array(
      v.strictObject({
        id: idSchema('relay'),
        url: text(256),
        isControl: v.boolean(),
        isDraining: v.boolean(),
      }),
    ),
    v.maxLength(maxRelays),
  ),
});
export type RelayList = v.InferOutput<typeof relayListSchema>;
export type ListedRelay = RelayList['relays'][number];

/** Reads a statement of kind `relays`. Throws ERR_STATEMENT_REFUSED for a bad signature, and as `verifyStatement`. */
export function verifyRelayList(statement: string, bundle: Bundle): RelayList {
  return verifyStatement('relays', relayListSchema, statement, bundle.grantKeys);
}
