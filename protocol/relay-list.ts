import * as v from 'valibot';
import { idSchema } from './id.ts';
import { natural, text } from './schema.ts';

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
