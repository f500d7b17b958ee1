import type { Platform } from './platform.ts';

/** What a person calls each fact that policies may need of a device. */
const names: Readonly<Record<string, string>> = {
  disk_encryption: 'disk encryption',
  firewall: 'firewall',
  screen_lock: 'screen lock',
  antivirus: 'antivirus',
  secure_boot: 'secure boot',
  patched: 'security updates',
  physical: 'physical machine',
  os_version: 'system version',
  os_version_number: 'system version',
  os_build: 'system version',
  client_version: 'version of ztna',
  client_version_number: 'version of ztna',
  age_seconds: 'report of this device',
};

type Advice = Readonly<Record<Platform, string>>;

const everywhere = (fix: string): Advice => ({ linux: fix, darwin: fix, win32: fix, other: fix });

const newerSystem: Advice = {
  linux: "update the system with its package manager, such as 'sudo apt full-upgrade', and restart",
  darwin: 'update macOS: System Settings → General → Software Update',
  win32: 'update Windows: Settings → Windows Update',
  other: 'update the system',
};

const newerClient = everywhere('install the newest version of ztna');

const advice: Readonly<Record<string, Advice>> = {
  disk_encryption: {
    linux:
      'turn on LUKS: it is chosen when the system is installed; ask your administrator before you install it anew',
    darwin: 'turn on FileVault: System Settings → Privacy & Security → FileVault',
    win32:
      'turn on BitLocker: Settings → Privacy & security → Device encryption, or Control Panel → BitLocker',
    other: 'turn on disk encryption',
  },
  firewall: {
    linux: 'turn on the firewall: sudo ufw enable (or: sudo systemctl enable --now firewalld)',
    darwin: 'turn on the firewall: System Settings → Network → Firewall',
    win32:
      'turn on the firewall for all networks: Windows Security → Firewall & network protection',
    other: 'turn on the firewall',
  },
  screen_lock: {
    linux: 'let the screen lock after 15 minutes or less: Settings → Privacy → Screen Lock',
    darwin:
      'let the screen lock after 15 minutes or less and ask for the password at once: System Settings → Lock Screen',
    win32:
      'let a screen saver start after 15 minutes or less with "On resume, display logon screen": Settings → Personalization → Lock screen → Screen saver',
    other: 'let the screen lock after 15 minutes or less',
  },
  antivirus: {
    linux: 'start the antivirus or EDR that your company uses, or ask your administrator for it',
    darwin: 'start the antivirus or EDR that your company uses, or ask your administrator for it',
    win32:
      'turn on real-time protection and update it: Windows Security → Virus & threat protection',
    other: 'start the antivirus that your company uses',
  },
  secure_boot: {
    linux: 'turn on Secure Boot in the firmware settings (UEFI) of this machine',
    darwin:
      'start in Recovery, choose Startup Security Utility, then Full Security; System Integrity Protection: csrutil enable',
    win32: 'turn on Secure Boot: Settings → Recovery → Advanced startup → UEFI Firmware Settings',
    other: 'turn on Secure Boot in the firmware settings of this machine',
  },
  patched: {
    linux:
      'let security updates install themselves (sudo apt install unattended-upgrades), install those that wait, and restart',
    darwin: 'install the updates that wait: System Settings → General → Software Update',
    win32: 'install the updates that wait and restart: Settings → Windows Update',
    other: 'install the updates that wait',
  },
  physical: everywhere('use ztna on the machine itself, not in a virtual machine or container'),
  os_version: newerSystem,
  os_version_number: newerSystem,
  os_build: newerSystem,
  client_version: newerClient,
  client_version_number: newerClient,
  age_seconds: everywhere('stay online: this device tells of itself every few seconds'),
};

/** The fact as a person calls it; a deployment's own checks by their id. */
export function checkTitle(check: string): string {
  return (Object.hasOwn(names, check) ? names[check] : undefined) ?? check;
}

/** What a person does about a check that is not healthy, as one sentence without its full stop. */
export function checkFix(check: string, platform: Platform): string {
  const known = Object.hasOwn(advice, check) ? advice[check] : undefined;
  return known?.[platform] ?? `ask your administrator how to meet the check ${check}`;
}

/** The check that a condition of a policy is about, `posture.firewall`; undefined when it is about something else. */
export function checkOfCondition(what: string): string | undefined {
  return /^posture\.([a-z][a-z0-9_]{0,63})$/.exec(what)?.[1];
}
