import * as v from 'valibot';
import { whole } from './report.ts';

/** Products that have told the security center of themselves. */
export const productsSchema = v.array(v.object({ name: v.string(), state: whole }));

/** The security center's state of a product: the second nibble of the second byte is 1 while it is on. */
export const isProductOn = ({ state }: { readonly state: number }): boolean =>
  (state & 0xf000) === 0x1000;

/** True when its definitions are no older than its maker allows. */
export const isProductCurrent = ({ state }: { readonly state: number }): boolean =>
  (state & 0xf0) === 0;
