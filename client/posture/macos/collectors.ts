import { findAntivirus } from '../antivirus.ts';
import { always, type Collection, type PlatformCollectors } from '../collector.ts';
import type { Finding } from '../finding.ts';
import { parseFileVault } from './disk-encryption.ts';
import { parseMacFirewall } from './firewall.ts';
import { parseMacScreenLock } from './screen-lock.ts';
import { judgeMacSecureBoot } from './secure-boot.ts';
import { parseHypervisor, parseSoftwareUpdate, parseSwVers } from './system.ts';

const defaults = ['/usr/bin/defaults'];

/** How each fact is found out on macOS. */
export const macCollectors: PlatformCollectors = {
  osVersion: async ({ machine, signal }) =>
    parseSwVers(await machine.run(['/usr/bin/sw_vers'], ['-productVersion'], { signal })),
  checks: [
    {
      check: 'disk_encryption',
      find: async ({ machine, signal }) =>
        parseFileVault(await machine.run(['/usr/bin/fdesetup'], ['status'], { signal })),
      keptForMs: { on: 60_000, off: 0 },
    },
    { check: 'firewall', find: findFirewall },
    { check: 'screen_lock', find: findScreenLock },
    {
      check: 'antivirus',
      find: async ({ machine, processes }) => findAntivirus(await processes(), machine.uid),
    },
    { check: 'secure_boot', find: findSecureBoot, keptForMs: always },
    {
      check: 'patched',
      find: async ({ machine, signal, nowMs }) =>
        parseSoftwareUpdate(
          await machine.run(defaults, ['read', '/Library/Preferences/com.apple.SoftwareUpdate'], {
            signal,
          }),
          nowMs,
        ),
      keptForMs: { on: 60_000, off: 0 },
    },
    {
      check: 'physical',
      find: async ({ machine, signal }) =>
        parseHypervisor(
          await machine.run(['/usr/sbin/sysctl'], ['-n', 'kern.hv_vmm_present'], { signal }),
        ),
      keptForMs: always,
    },
  ],
};

async function findFirewall({ machine, signal }: Collection): Promise<Finding> {
  const filter = await machine.run(
    ['/usr/libexec/ApplicationFirewall/socketfilterfw'],
    ['--getglobalstate'],
    { signal },
  );
  const finding = parseMacFirewall(filter, undefined);
  if (finding.result !== 'unknown') return finding;
  const kept = ['read', '/Library/Preferences/com.apple.alf', 'globalstate'];
  return parseMacFirewall(filter, await machine.run(defaults, kept, { signal }));
}

async function findScreenLock({ machine, signal }: Collection): Promise<Finding> {
  const saver = ['-currentHost', 'read', 'com.apple.screensaver', 'idleTime'];
  return parseMacScreenLock(
    ...(await Promise.all([
      machine.run(['/usr/sbin/sysadminctl'], ['-screenLock', 'status'], { signal }),
      machine.run(defaults, saver, { signal }),
      machine.run(['/usr/bin/pmset'], ['-g'], { signal }),
    ])),
  );
}

async function findSecureBoot({ machine, signal }: Collection): Promise<Finding> {
  const variable = '94b73556-2197-4702-82a8-3e1337dafbfb:AppleSecureBootPolicy';
  const [csrutil, nvram] = await Promise.all([
    machine.run(['/usr/bin/csrutil'], ['status'], { signal }),
    machine.run(['/usr/sbin/nvram'], [variable], { signal }),
  ]);
  const isIntel = !('failure' in nvram) && nvram.exitCode === 0;
  const profiler = isIntel
    ? undefined
    : await machine.run(['/usr/sbin/system_profiler'], ['SPiBridgeDataType'], { signal });
  return judgeMacSecureBoot({ csrutil, nvram, profiler });
}
