/**
 * `npm run demo`: the whole product on this machine, as separate processes on loopback.
 *
 *   npm run demo                                        a small private web app, until Ctrl-C
 *   npm run demo -- --once                              the same, then stop; exit 0 if every step worked
 *   npm run demo -- --app db=tcp://127.0.0.1:5432       a real app of yours instead
 */
import { createServer, type Server } from 'node:http';
import { parseArgs, styleText } from 'node:util';
import type { AddressInfo } from 'node:net';
import { Deployment } from '../support/deployment.ts';

const { values } = parseArgs({
  options: {
    once: { type: 'boolean', default: false },
    app: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log('npm run demo [-- --once] [-- --app NAME=tcp://HOST:PORT]');
  process.exit(0);
}
const own = /^([a-z0-9-]+)=(tcp:\/\/\S+:\d+)$/.exec(values.app ?? '');
if (values.app !== undefined && !own) {
  console.error(
    'error: --app takes NAME=tcp://HOST:PORT, such as db=tcp://127.0.0.1:5432 [ERR_CONFIG_USAGE]',
  );
  process.exit(2);
}

const page = 'Hello from a private app that opens no port to the network.\n';
let step = 0;
const say = (text: string): void => {
  console.log(`${styleText('cyan', `${++step}.`)} ${text}`);
};
const note = (text: string): void => {
  console.log(`   ${styleText('dim', text)}`);
};

let web: Server | undefined;
let deployment: Deployment | undefined;
const state = { isStopping: false };

async function stop(code: number): Promise<never> {
  if (!state.isStopping) {
    state.isStopping = true;
    await deployment?.stop();
    web?.close();
    web?.closeAllConnections();
  }
  process.exit(code);
}
process.once('SIGINT', () => void stop(values.once ? 130 : 0));
process.once('SIGTERM', () => void stop(0));
// When the process that started the demo goes, so does the demo: nothing is left running unseen.
const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent) void stop(0);
}, 1_000).unref();

async function startWebApp(): Promise<{ name: string; target: string }> {
  web = createServer((_request, response) => {
    response.setHeader('content-type', 'text/plain; charset=utf-8');
    response.end(page);
  });
  await new Promise<void>((resolve) => web?.listen(0, '127.0.0.1', resolve));
  return { name: 'hello', target: `tcp://127.0.0.1:${(web.address() as AddressInfo).port}` };
}

try {
  const app = own ? { name: own[1] ?? '', target: own[2] ?? '' } : await startWebApp();
  say(
    `a private app ${styleText('bold', app.name)} listens on ${app.target.slice(6)}, reachable from this host alone`,
  );

  deployment = await Deployment.start({
    apps: [app],
    dirPrefix: 'ztna-demo-',
    relayConfig: { verification: '{ interval: 2s }' },
    onStep: (text) => {
      const texts: Record<string, string> = {
        'relay: init': 'ztna-relay init: keys, root of trust and store are made',
        'relay: run': 'ztna-relay run: control plane and data plane start as two processes',
        'policy: apply':
          'ztna-relay policy apply: group staff may connect; everything else is denied',
        'connector: invite and run':
          'ztna-connector run: enrols with a one-time code and dials out; it opens no port',
      };
      say(texts[text] ?? text);
    },
  });
  note(`state: ${deployment.dir}   relay: ${deployment.url}`);

  say('ztna enroll: this machine makes its keys, proves them, and signs alice in');
  const machine = await deployment.enrol('alice', ['staff']);

  say(`ztna connect ${app.name}`);
  const { program, port } = await deployment.connect(machine, app.name);
  const open = await program.event('open');
  note(
    `listening on 127.0.0.1:${port}; tunnel ${String(open['tunnel'])} may move bytes until ${String(open['until'])}`,
  );

  if (!own) {
    const answer = await fetch(`http://127.0.0.1:${port}/`);
    const text = await answer.text();
    if (text !== page) throw new Error(`the app answered something else: ${text}`);
    say(`a page fetched through the tunnel: ${styleText('green', text.trim())}`);
  }

  const verified = await program.event('verified');
  say(`verified again on the timer: may now move bytes until ${String(verified['until'])}`);

  if (values.once) {
    say('every step worked');
    await stop(0);
  }
  console.log(
    `\nOpen ${styleText('bold', own ? `127.0.0.1:${port}` : `http://127.0.0.1:${port}/`)} while this runs. Try also:`,
  );
  const inDir = `--dir ${deployment.relayDir}`;
  console.log(`  relay/ztna-relay tunnel list ${inDir}`);
  console.log(`  relay/ztna-relay audit tail ${inDir}`);
  console.log(`  relay/ztna-relay user disable alice ${inDir}     # cuts the live tunnel`);
  console.log('Ctrl-C stops everything.');
  const end = await program.ended;
  console.log(
    `\nthe tunnel ended (exit ${String(end.code)}):\n${program.transcript().split('\n').slice(-4).join('\n')}`,
  );
  await stop(0);
} catch (error) {
  if (!state.isStopping) {
    console.error(styleText('red', `\nthe demo failed at step ${step}:`));
    console.error(error instanceof Error ? error.message : error);
  }
  await stop(1);
}
