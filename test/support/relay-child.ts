import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { ZtnaError } from '../../protocol/index.ts';
import { runChild } from '../../relay/child.ts';

/** A child of the relay that only writes down what happens to it: started, stopped, and with which pid. */
const name = process.argv[1]?.endsWith('-data.ts') === true ? 'data-plane' : 'control-plane';

await runChild(name, (settings) => {
  const note = (what: string) => {
    appendFileSync(join(settings.dir, 'notes'), `${name} ${what} ${process.pid}\n`);
  };
  if (settings.listen.host === 'busy') {
    return Promise.reject(
      new ZtnaError('ERR_CLIENT_PORT_BUSY', { message: 'it is taken', hint: 'take another' }),
    );
  }
  if (process.env['PGPASSWORD'] !== undefined) note('password');
  note('started');
  const alive = setInterval(() => undefined, 1_000);
  return Promise.resolve({
    port: settings.listen.port === 0 ? 4_711 : settings.listen.port,
    drain: () => {
      note('drained');
      return Promise.resolve();
    },
    stop: () => {
      note('stopped');
      clearInterval(alive);
      return Promise.resolve();
    },
  });
});
