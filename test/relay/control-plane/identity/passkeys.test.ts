import test from 'ava';
import { relyingPartyOf } from '../../../../relay/control-plane/identity/index.ts';

test('relyingPartyOf - is the host, or the domain above it, with the page’s own origin; none for an address', (t) => {
  const url = 'https://eu.example.com:8443';
  t.deepEqual(relyingPartyOf({ url }), { id: 'eu.example.com', origin: url });
  const party = relyingPartyOf({ url: 'https://eu.example.com:443', passkeyDomain: 'example.com' });
  t.deepEqual(party, { id: 'example.com', origin: 'https://eu.example.com' });
  for (const host of ['127.0.0.1', '[::1]']) {
    t.is(relyingPartyOf({ url: `https://${host}:443`, passkeyDomain: null }), null);
  }
});
