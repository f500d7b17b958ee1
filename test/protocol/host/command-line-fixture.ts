/** A small program on `runCommandLine`, which the tests run as a process. */
import { ZtnaError } from '../../../protocol/errors.ts';
import { notAvailableYet, runCommandLine } from '../../../protocol/host/command-line.ts';
import { warnUnknownEnvironment } from '../../../protocol/host/environment.ts';
import { askHidden, readSecretArgument } from '../../../protocol/host/input.ts';
import { shutdownSignal } from '../../../protocol/host/shutdown.ts';
import { printJsonLine } from '../../../protocol/host/terminal.ts';

warnUnknownEnvironment('fixture', ['ZTNA_FIXTURE']);
await runCommandLine({
  program: 'fixture',
  argv: process.argv.slice(2),
  build: (yargs) =>
    yargs
      .option('json', { type: 'boolean', default: false })
      .command(
        'show <name>',
        'shows what was understood',
        (y) =>
          y
            .positional('name', { type: 'string', demandOption: true })
            .option('group', { type: 'array', string: true, default: [] }),
        ({ name, group, '--': rest }) => {
          printJsonLine({ name, group, rest });
        },
      )
      .command('deny', 'is denied', {}, () => {
        throw new ZtnaError('ERR_POSTURE_UNHEALTHY', {
          message: 'disk encryption is off\u001b[2J',
          hint: 'turn on LUKS, then run: ztna posture',
          ref: 'dec_1',
        });
      })
      .command('revoked', 'is told that it was revoked', {}, () => {
        throw new ZtnaError('ERR_IDENTITY_REVOKED');
      })
      .command('group', 'holds commands', (y) =>
        y
          .command(
            'list',
            'lists',
            (inner) => inner.strict(),
            () => undefined,
          )
          .demandCommand(1, 1, 'name a command: list')
          .strict(),
      )
      .command('fail', 'fails inside', {}, () => {
        throw new Error('the password is hunter2');
      })
      .command('later', 'comes later', {}, () => notAvailableYet('later'))
      .command('ask', 'asks', {}, async () => {
        await askHidden('password: ');
      })
      .command(
        'secret <source>',
        'reads',
        (y) => y.positional('source', { type: 'string' }),
        async (a) => {
          printJsonLine(await readSecretArgument(String(a.source)));
        },
      )
      .command('wait', 'waits to be ended', {}, async () => {
        process.stdout.write('ready\n');
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, 60_000);
          shutdownSignal().addEventListener('abort', () => {
            clearTimeout(timer);
            process.stdout.write('ended in good order\n');
            resolve();
          });
        });
      })
      .command('hang', 'never ends', {}, async () => {
        process.stdout.write('ready\n');
        await new Promise((resolve) => setTimeout(resolve, 60_000));
      }),
});
