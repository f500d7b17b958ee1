import { notAvailableYet } from '../../protocol/host/index.ts';
import type { Argv } from 'yargs';

/** Words of the command line contract whose part has not been built. They take any arguments and refuse. */
const laterWords = ['roster', 'backup', 'restore', 'doctor'];

export function addLaterCommands(y: Argv): Argv {
  return laterWords.reduce(
    (all, word) =>
      all.command(
        `${word} [words..]`,
        'not available yet',
        (inner) => inner.strict(false).strictOptions(false),
        () => notAvailableYet(word),
      ),
    y,
  );
}
