import test from 'ava';
import { newId } from '../../../../protocol/index.ts';
import {
  connectorAwayMs,
  connectorReturnMs,
  connectorSilentMs,
} from '../../../../relay/control-plane/limits.ts';
import { Absences } from '../../../../relay/control-plane/live/absences.ts';

const startMs = 1_000_000;
const leftMs = startMs + 60_000;

test('Absences - one that was cut without a word is not waited for as long as one that may be alive', (t) => {
  const [killed, silent, polite] = [newId('connector'), newId('connector'), newId('connector')];
  const absences = new Absences(startMs);
  absences.leave(killed, leftMs, 'cut');
  absences.leave(silent, leftMs, 'silent');
  absences.leave(polite, leftMs, 'closed');
  t.is(absences.untilMs(killed), leftMs + connectorAwayMs);
  t.is(absences.untilMs(silent), leftMs + connectorSilentMs);
  t.is(absences.untilMs(polite), leftMs + connectorSilentMs);
  absences.sweep(leftMs + connectorAwayMs);
  t.is(absences.untilMs(silent), leftMs + connectorSilentMs);
});

test('Absences - after a start every one gets the same time to come back', (t) => {
  const [known, unknown] = [newId('connector'), newId('connector')];
  const absences = new Absences(startMs);
  absences.leave(known, startMs + 1_000, 'silent');
  absences.restart(startMs + 2_000);
  for (const connector of [known, unknown]) {
    t.is(absences.untilMs(connector), startMs + 2_000 + connectorReturnMs);
  }
});
