/** Writes users one by one into the store named on its command line, and says so after each, until it is killed. */
import { newId } from '../../../../protocol/index.ts';
import { openStore } from '../../../../relay/control-plane/store/index.ts';

const store = await openStore({ directory: process.argv[2] ?? '' });
process.stdout.write('ready\n');
if (process.argv[3] === 'hold') {
  process.stdin.resume(); // lives until its parent lets go
} else {
  for (let count = 1; ; count++) {
    await store.write((tx) =>
      tx
        .insertInto('users')
        .values({
          id: newId('user'),
          name: `user${String(count)}`,
          role: null,
          disabled: 0,
          passwordHash: null,
          expiresAtMs: null,
          createdAtMs: count,
        })
        .execute(),
    );
    process.stdout.write(`${String(count)}\n`);
  }
}
