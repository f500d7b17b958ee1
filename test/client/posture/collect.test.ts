import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import * as v from 'valibot';
import { PostureCollector } from '../../../client/posture/collect.ts';
import { firewallUnits } from '../../../client/posture/linux/firewall.ts';
import { LocalMachine } from '../../../client/posture/machine.ts';
import {
  maxPostureChecks,
  postureFactsSchema,
  type DevicePosture,
  type ExtraCheck,
} from '../../../protocol/index.ts';
import { luksDisk } from './parsers.ts';
import { writeFakeTool } from './write-fake-tool.ts';

const builtIn = [
  'disk_encryption',
  'firewall',
  'screen_lock',
  'antivirus',
  'secure_boot',
  'patched',
  'physical',
];

/** However busy the machine is that the tests run on, its tools get as far as they can. */
const patientMs = 100_000;

/** A directory that looks like a healthy Linux machine, with tools that are shell scripts. */
class FakeLinux {
  readonly root: string;

  private constructor(root: string) {
    this.root = root;
  }

  static async create(t: ExecutionContext): Promise<FakeLinux> {
    const linux = new FakeLinux(await mkdtemp(join(tmpdir(), 'ztna-linux-')));
    t.teardown(() => rm(linux.root, { recursive: true, force: true }));
    await Promise.all([
      linux.file('/etc/os-release', 'VERSION_ID="24.04"\n'),
      linux.file('/proc/self/mounts', '/dev/mapper/vgubuntu-root / ext4 rw 0 0\n'),
      linux.file('/proc/1/comm', 'systemd\n'),
      linux.file('/proc/2/comm', 'falcon-sensor\n'),
      linux.file('/proc/3/comm', 'gnome-shell\n'),
      linux.file(
        '/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c',
        '\x06\0\0\0\x01',
      ),
      linux.file('/var/lib/apt/periodic/unattended-upgrades-stamp', ''),
      linux.file('/lsblk.json', luksDisk),
      linux.tool('/usr/bin/lsblk', `cat "${linux.root}/lsblk.json"`),
      linux.tool(
        '/usr/bin/systemctl',
        firewallUnits
          .map((unit) => `echo ${unit === 'firewalld' ? 'active' : 'inactive'}`)
          .join('\n'),
      ),
      linux.tool(
        '/usr/bin/gsettings',
        'case "$1" in list-recursively) echo "$2 lock-enabled true"; echo "$2 lock-delay uint32 0";; get) echo uint32 300;; esac',
      ),
      linux.tool('/usr/bin/systemd-detect-virt', 'echo none; exit 1'),
    ]);
    return linux;
  }

  async file(path: string, content: string): Promise<void> {
    const file = join(this.root, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, content);
  }

  /** A tool that notes each of its runs. */
  async tool(path: string, body: string): Promise<void> {
    await writeFakeTool(join(this.root, path), `echo run >> "$0.runs"\n${body}`);
  }

  runsOf(path: string): number {
    const file = join(this.root, `${path}.runs`);
    return existsSync(file) ? readFileSync(file, 'utf8').split('\n').length - 1 : 0;
  }

  collector(toolTimeoutMs = patientMs): PostureCollector {
    const { root } = this;
    const uid = process.getuid?.() ?? 0;
    return new PostureCollector({
      clientVersion: '1.2.3',
      machine: new LocalMachine({
        root,
        platform: 'linux',
        homeDir: '/home/ada',
        uid,
        toolTimeoutMs,
      }),
      withinMs: patientMs,
    });
  }
}

const resultsOf = (facts: DevicePosture): Record<string, string> =>
  Object.fromEntries(facts.checks.map(([check, result]) => [check, result]));

const resultOf = (facts: DevicePosture, check: string): string | undefined =>
  resultsOf(facts)[check];

/** Where the user runs as anybody but root, an antivirus of the same user does not count. */
const antivirus = process.getuid?.() === 0 ? 'on' : 'off';

test.serial('PostureCollector - collects every fact of a healthy machine', async (t) => {
  const linux = await FakeLinux.create(t);
  const facts = await linux.collector().collect();
  t.is(facts.platform, 'linux');
  t.is(facts.osVersion, '24.04');
  t.is(facts.clientVersion, '1.2.3');
  t.deepEqual(resultsOf(facts), {
    ...Object.fromEntries(builtIn.map((check) => [check, 'on'])),
    antivirus,
  });
  t.true(v.is(postureFactsSchema, facts));
});

test.serial(
  'PostureCollector - on this machine answers in the form that statements have',
  async (t) => {
    const facts = await new PostureCollector({ clientVersion: '1.2.3' }).collect();
    t.true(v.is(postureFactsSchema, facts), JSON.stringify(facts));
    t.deepEqual(
      facts.checks.map(([check]) => check),
      builtIn,
    );
  },
);

const breakages: Readonly<Record<string, string>> = {
  hang: 'trap "" TERM; sleep 600',
  'print rubbish': 'head -c 4000 /dev/urandom',
  'print binary zeros': 'head -c 4000 /dev/zero',
  flood: 'while :; do echo "Status: active"; done',
  'say nothing': 'exit 0',
  'lie in format': 'echo \'{"blockdevices":[{"type":"crypt"}]}\'; echo active; echo true; echo on',
  fail: 'echo active; exit 77',
  die: 'kill -KILL $$',
};

for (const [what, body] of Object.entries(breakages)) {
  test.serial(`PostureCollector - counts nothing as healthy of tools that ${what}`, async (t) => {
    const linux = await FakeLinux.create(t);
    for (const name of ['lsblk', 'systemctl', 'gsettings', 'systemd-detect-virt']) {
      await linux.tool(`/usr/bin/${name}`, body);
    }
    const facts = await linux.collector(what === 'hang' ? 500 : patientMs).collect();
    for (const check of ['disk_encryption', 'firewall', 'screen_lock', 'physical']) {
      t.is(resultOf(facts, check), 'unknown', check);
    }
    // What asks no tool is found out all the same.
    t.is(resultOf(facts, 'secure_boot'), 'on');
    t.is(resultOf(facts, 'patched'), 'on');
    t.true(v.is(postureFactsSchema, facts));
  });
}

test.serial(
  'PostureCollector - counts nothing as healthy on a machine that has nothing',
  async (t) => {
    const root = await mkdtemp(join(tmpdir(), 'ztna-empty-'));
    t.teardown(() => rm(root, { recursive: true, force: true }));
    for (const platform of ['linux', 'darwin', 'win32', 'other'] as const) {
      const machine = new LocalMachine({ root, platform, homeDir: '/home/ada', uid: 1_000 });
      const facts = await new PostureCollector({ clientVersion: '1', machine }).collect();
      t.is(facts.platform, platform);
      t.is(facts.osVersion, '');
      t.deepEqual(Object.keys(resultsOf(facts)), builtIn);
      t.false(Object.values(resultsOf(facts)).includes('on'), platform);
      t.true(v.is(postureFactsSchema, facts));
    }
  },
);

test.serial('PostureCollector - sees at once what was mended, and what was broken', async (t) => {
  const linux = await FakeLinux.create(t);
  const collector = linux.collector();
  t.is(resultOf(await collector.collect(), 'firewall'), 'on');
  const told = (active: string) =>
    firewallUnits.map((unit) => `echo ${unit === active ? 'active' : 'inactive'}`).join('\n');
  await linux.tool('/usr/bin/systemctl', told('none'));
  t.is(resultOf(await collector.collect(), 'firewall'), 'off');
  await linux.tool('/usr/bin/systemctl', told('firewalld'));
  t.is(resultOf(await collector.collect(), 'firewall'), 'on');
});

test.serial(
  'PostureCollector - looks again at what changes slowly only when it was not healthy, or is to be fresh',
  async (t) => {
    const linux = await FakeLinux.create(t);
    const collector = linux.collector();
    await collector.collect();
    await collector.collect();
    t.is(linux.runsOf('/usr/bin/lsblk'), 1);
    t.is(linux.runsOf('/usr/bin/systemd-detect-virt'), 1);
    await linux.file('/lsblk.json', luksDisk.replace('"crypt"', '"part"'));
    t.is(resultOf(await collector.collect(), 'disk_encryption'), 'on');
    t.is(resultOf(await collector.collect({ isFresh: true }), 'disk_encryption'), 'off');
    t.is(linux.runsOf('/usr/bin/lsblk'), 2);
    await linux.file('/lsblk.json', luksDisk);
    t.is(resultOf(await collector.collect(), 'disk_encryption'), 'on');
    t.is(linux.runsOf('/usr/bin/lsblk'), 3);
    t.is(linux.runsOf('/usr/bin/systemd-detect-virt'), 1);
  },
);

test.serial('PostureCollector - ends when it is told to, with what it knows', async (t) => {
  const linux = await FakeLinux.create(t);
  await linux.tool('/usr/bin/systemctl', 'sleep 600');
  const controller = new AbortController();
  const collecting = linux.collector().collect({ signal: controller.signal });
  controller.abort();
  t.is(resultOf(await collecting, 'firewall'), 'unknown');
  const facts = await linux.collector().collect({ signal: AbortSignal.abort() });
  t.false(Object.values(resultsOf(facts)).includes('on'));
});

test.serial('PostureCollector - knows everything again right after it was cut short', async (t) => {
  const linux = await FakeLinux.create(t);
  await linux.tool(
    '/usr/bin/systemctl',
    firewallUnits
      .map((unit) => `echo ${unit === 'firewalld' ? 'active' : 'inactive'}`)
      .concat('[ -e "$0.hangs" ] && sleep 600; exit 0')
      .join('\n'),
  );
  await linux.file('/usr/bin/systemctl.hangs', '');
  const collector = linux.collector();
  const controller = new AbortController();
  const cut = collector.collect({ signal: controller.signal });
  while (linux.runsOf('/usr/bin/systemctl') === 0) await new Promise(setImmediate);
  await rm(join(linux.root, '/usr/bin/systemctl.hangs'));
  controller.abort();
  t.is(resultOf(await cut, 'firewall'), 'unknown');
  t.is(resultOf(await collector.collect(), 'firewall'), 'on');
});

test.serial('PostureCollector - finds out what a deployment asks for besides', async (t) => {
  const linux = await FakeLinux.create(t);
  await linux.file('/etc/corp/enrolled', 'yes');
  const sha256 = createHash('sha256').update('yes').digest('hex');
  const extraChecks: ExtraCheck[] = [
    { kind: 'process', id: 'edr', name: 'falcon-sensor' },
    { kind: 'process', id: 'backup', name: 'backupd' },
    { kind: 'no_process', id: 'no_miner', name: 'xmrig' },
    { kind: 'no_process', id: 'no_edr', name: 'falcon-sensor' },
    { kind: 'file', id: 'enrolled', path: '/etc/corp/enrolled', sha256: null },
    { kind: 'file', id: 'same', path: '/etc/corp/enrolled', sha256 },
    { kind: 'file', id: 'other', path: '/etc/corp/enrolled', sha256: '0'.repeat(64) },
    { kind: 'file', id: 'relative', path: 'etc/corp/enrolled', sha256: null },
    { kind: 'file', id: 'share', path: '//nas/corp/enrolled', sha256: null },
    { kind: 'no_file', id: 'no_jailbreak', path: '/etc/jailbreak' },
    { kind: 'registry', id: 'reg', key: 'HKLM\\SOFTWARE\\Corp', value: null, equals: null },
  ];
  const { checks } = await linux.collector().collect({ extraChecks });
  const extra = checks.slice(builtIn.length).map(([check, result]) => [check, result]);
  t.deepEqual(Object.fromEntries(extra), {
    edr: 'on',
    backup: 'off',
    no_miner: 'on',
    no_edr: 'off',
    enrolled: 'on',
    same: 'on',
    other: 'off',
    relative: 'unknown',
    share: 'unknown',
    no_jailbreak: 'on',
    reg: 'unknown',
  });
});

test.serial(
  'PostureCollector - keeps its own checks, and no more than a statement holds',
  async (t) => {
    const linux = await FakeLinux.create(t);
    const check = (id: string): ExtraCheck => ({ kind: 'no_file', id, path: '/nothing' });
    const extraChecks = [
      ...['disk_encryption', 'same', 'same'].map(check),
      ...Array.from({ length: 100 }, (_, i) => check(`c${String(i)}`)),
    ];
    await linux.file('/lsblk.json', luksDisk.replace('"crypt"', '"part"'));
    const facts = await linux.collector().collect({ extraChecks });
    t.is(facts.checks.length, maxPostureChecks);
    t.is(new Set(facts.checks.map(([id]) => id)).size, maxPostureChecks);
    t.is(resultOf(facts, 'disk_encryption'), 'off');
    t.true(v.is(postureFactsSchema, facts));
  },
);

test.serial('PostureCollector - does not begin again what still hangs', async (t) => {
  const linux = await FakeLinux.create(t);
  let asked = 0;
  const hanging = new Promise<never>(() => undefined);
  class Hanging extends LocalMachine {
    override processes(): Promise<never> {
      asked += 1;
      return hanging;
    }
  }
  const machine = new Hanging({ root: linux.root, platform: 'linux', homeDir: '/', uid: 1 });
  const collector = new PostureCollector({ clientVersion: '1', machine, withinMs: 300 });
  for (let round = 0; round < 3; round += 1) {
    const facts = await collector.collect();
    t.is(resultOf(facts, 'antivirus'), 'unknown');
    t.is(resultOf(facts, 'screen_lock'), 'unknown');
  }
  t.is(asked, 1);
});

test.serial('PostureCollector - finds unknown what fails in a way nobody thought of', async (t) => {
  const linux = await FakeLinux.create(t);
  class Failing extends LocalMachine {
    override read(): Promise<never> {
      return Promise.reject(new TypeError('cannot read'));
    }
    override run(): Promise<never> {
      return Promise.reject(new RangeError('too much'));
    }
  }
  const machine = new Failing({ root: linux.root, platform: 'linux', homeDir: '/', uid: 1 });
  const facts = await new PostureCollector({ clientVersion: '1', machine }).collect();
  for (const [check, result] of facts.checks) {
    if (check !== 'antivirus') t.is(result, 'unknown', check);
  }
});

test.serial('LocalMachine - runs four tools at once and no more', async (t) => {
  const linux = await FakeLinux.create(t);
  // Each notes how many there are while it runs.
  await linux.tool(
    '/usr/bin/busy',
    `: > "${linux.root}/busy.$$"; ls "${linux.root}" | grep -c "^busy[.]"; sleep 0.05; rm "${linux.root}/busy.$$"`,
  );
  const machine = new LocalMachine({
    root: linux.root,
    platform: 'linux',
    toolTimeoutMs: patientMs,
  });
  const answers = await Promise.all(
    Array.from({ length: 12 }, () => machine.run(['/bin/busy', '/usr/bin/busy'], [])),
  );
  const counts = answers.map((answer) => ('stdout' in answer ? Number(answer.stdout) : -1));
  t.true(
    counts.every((count) => count >= 1 && count <= 4),
    counts.join(' '),
  );
});
