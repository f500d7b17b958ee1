import { parseDiskEncryption } from '../../../client/posture/linux/disk-encryption.ts';
import type { Finding } from '../../../client/posture/finding.ts';
import { firewallUnits, judgeFirewall } from '../../../client/posture/linux/firewall.ts';
import { parseDetectVirt } from '../../../client/posture/linux/physical.ts';
import { parseGnomeLock } from '../../../client/posture/linux/screen-lock.ts';
import { judgeSecureBoot } from '../../../client/posture/linux/secure-boot.ts';
import { parseFileVault } from '../../../client/posture/macos/disk-encryption.ts';
import { parseMacFirewall } from '../../../client/posture/macos/firewall.ts';
import { parseMacScreenLock } from '../../../client/posture/macos/screen-lock.ts';
import { judgeMacSecureBoot } from '../../../client/posture/macos/secure-boot.ts';
import { parseHypervisor, parseSoftwareUpdate } from '../../../client/posture/macos/system.ts';
import type { ToolAnswer } from '../../../client/posture/run-tool.ts';
import { judgeWindowsAntivirus } from '../../../client/posture/windows/antivirus.ts';
import { judgeBitLocker } from '../../../client/posture/windows/disk-encryption.ts';
import { judgeWindowsFirewall } from '../../../client/posture/windows/firewall.ts';
import { parseReg } from '../../../client/posture/windows/registry.ts';
import { readReport } from '../../../client/posture/windows/report.ts';
import { judgeWindowsScreenLock } from '../../../client/posture/windows/screen-lock.ts';
import {
  judgeWindowsPatched,
  judgeWindowsPhysical,
  judgeWindowsSecureBoot,
} from '../../../client/posture/windows/system.ts';
import { missing, noFile, said } from './answers.ts';

/** What a tool prints on a healthy machine, and what is made of it. */
export interface HealthyOutput {
  readonly name: string;
  readonly judge: (answer: ToolAnswer) => Finding;
  readonly healthy: string;
  readonly exitCode?: number;
  /** False where its exit code says nothing, or its last words do not matter. */
  readonly isExitCodeHeeded?: boolean;
  readonly isEndNeeded?: boolean;
}

export const luksDisk = `{
   "blockdevices": [
      {"name":"loop0", "type":"loop", "mountpoints":["/snap/core20/1974"], "fstype":"squashfs", "uuid":null},
      {"name":"nvme0n1", "type":"disk", "mountpoints":[null], "fstype":null, "uuid":null,
         "children": [
            {"name":"nvme0n1p1", "type":"part", "mountpoints":["/boot/efi"], "fstype":"vfat", "uuid":"5D1F-6B2A"},
            {"name":"nvme0n1p2", "type":"part", "mountpoints":["/boot"], "fstype":"ext4", "uuid":"0b1c"},
            {"name":"nvme0n1p3", "type":"part", "mountpoints":[null], "fstype":"crypto_LUKS", "uuid":"9f7e",
               "children": [
                  {"name":"nvme0n1p3_crypt", "type":"crypt", "mountpoints":[null], "fstype":"LVM2_member", "uuid":"x",
                     "children": [
                        {"name":"vgubuntu-root", "type":"lvm", "mountpoints":["/"], "fstype":"ext4", "uuid":"y"},
                        {"name":"vgubuntu-swap_1", "type":"lvm", "mountpoints":["[SWAP]"], "fstype":"swap", "uuid":"z"}
                     ]
                  }
               ]
            }
         ]
      }
   ]
}
`;

export const ext4Root =
  'proc /proc proc rw 0 0\n/dev/mapper/vgubuntu-root / ext4 rw,relatime 0 0\n';

const windows =
  (judge: (report: ReturnType<typeof readReport>) => Finding) =>
  (answer: ToolAnswer): Finding =>
    judge(readReport(answer));

const dayMs = 86_400_000;
export const updatedAtMs = Date.parse('2026-05-01T10:11:12Z');

/** One of each tool whose word alone can make a check healthy. */
export const healthyOutputs: readonly HealthyOutput[] = [
  {
    name: 'lsblk',
    judge: (lsblk) =>
      parseDiskEncryption({ lsblk, mounts: ext4Root, homeDir: '/home/ada', zfs: undefined }),
    healthy: luksDisk,
  },
  {
    name: 'nft list ruleset',
    judge: (ruleset) => judgeFirewall({ ruleset, units: missing }),
    healthy:
      'table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}\n',
    isEndNeeded: false,
  },
  {
    name: 'ufw status',
    judge: (ufwStatus) => judgeFirewall({ ufwStatus, units: missing }),
    healthy: 'Status: active\n\nTo                         Action      From\n',
    isEndNeeded: false,
  },
  {
    name: 'systemctl is-active',
    judge: (units) => judgeFirewall({ units }),
    healthy: firewallUnits
      .map((unit) => (unit === 'firewalld' ? 'active\n' : 'inactive\n'))
      .join(''),
    isExitCodeHeeded: false,
  },
  {
    name: 'firewall-cmd --state',
    judge: (firewalld) => judgeFirewall({ firewalld, units: missing }),
    healthy: 'running\n',
  },
  {
    name: 'gsettings list-recursively',
    judge: (answer) => parseGnomeLock(answer, said('uint32 300\n')),
    healthy:
      "org.gnome.desktop.screensaver color-shading-type 'solid'\norg.gnome.desktop.screensaver lock-delay uint32 0\norg.gnome.desktop.screensaver lock-enabled true\n",
  },
  {
    name: 'gsettings get',
    judge: (answer) =>
      parseGnomeLock(
        said(
          'org.gnome.desktop.screensaver lock-delay uint32 0\norg.gnome.desktop.screensaver lock-enabled true\n',
        ),
        answer,
      ),
    healthy: 'uint32 300\n',
    isEndNeeded: false,
  },
  {
    name: 'mokutil --sb-state',
    judge: (mokutil) =>
      judgeSecureBoot({ hasFirmware: true, secureBoot: noFile, shimState: noFile, mokutil }),
    healthy: 'SecureBoot enabled\n',
  },
  {
    name: 'systemd-detect-virt',
    judge: (answer) => parseDetectVirt(answer, 'LENOVO', '20XW'),
    healthy: 'none\n',
    exitCode: 1,
    isExitCodeHeeded: false,
  },
  { name: 'fdesetup status', judge: parseFileVault, healthy: 'FileVault is On.\n' },
  {
    name: 'socketfilterfw --getglobalstate',
    judge: (answer) => parseMacFirewall(answer, undefined),
    healthy: 'Firewall is enabled. (State = 1) \n',
  },
  {
    name: 'defaults read com.apple.alf globalstate',
    judge: (answer) => parseMacFirewall(missing, answer),
    healthy: '1\n',
  },
  {
    name: 'sysadminctl -screenLock status',
    judge: (answer) => parseMacScreenLock(answer, said('300\n'), missing),
    healthy: '2026-05-01 10:00:00.000 sysadminctl[512:9001] screenLock delay is immediate\n',
    isExitCodeHeeded: false,
  },
  {
    name: 'csrutil status',
    judge: (csrutil) =>
      judgeMacSecureBoot({
        csrutil,
        nvram: said('94b73556-2197-4702-82a8-3e1337dafbfb:AppleSecureBootPolicy\t%02\n'),
        profiler: undefined,
      }),
    healthy: 'System Integrity Protection status: enabled.\n',
  },
  {
    name: 'nvram AppleSecureBootPolicy',
    judge: (nvram) =>
      judgeMacSecureBoot({
        csrutil: said('System Integrity Protection status: enabled.\n'),
        nvram,
        profiler: undefined,
      }),
    healthy: '94b73556-2197-4702-82a8-3e1337dafbfb:AppleSecureBootPolicy\t%02\n',
  },
  {
    name: 'system_profiler SPiBridgeDataType',
    judge: (profiler) =>
      judgeMacSecureBoot({
        csrutil: said('System Integrity Protection status: enabled.\n'),
        nvram: said('', 1, 'nvram: Error getting variable'),
        profiler,
      }),
    healthy:
      'Controller:\n\n    Controller Information:\n\n      Model Identifier: Mac14,2\n      Boot Policy:\n        Secure Boot: Full Security\n        System Integrity Protection: Enabled\n',
    isEndNeeded: false,
  },
  { name: 'sysctl -n kern.hv_vmm_present', judge: parseHypervisor, healthy: '0\n' },
  {
    name: 'defaults read com.apple.SoftwareUpdate',
    judge: (answer) => parseSoftwareUpdate(answer, updatedAtMs + 2 * dayMs),
    healthy:
      '{\n    AutomaticCheckEnabled = 1;\n    LastRecommendedUpdatesAvailable = 0;\n    LastSuccessfulDate = "2026-05-01 10:11:12 +0000";\n    RecommendedUpdates =     (\n    );\n}\n',
    isEndNeeded: false,
  },
  {
    name: 'Get-BitLockerVolume',
    judge: windows(judgeBitLocker),
    healthy: '{"bitlocker":{"protection":1,"volume":1},"shellProtection":1}\r\n',
  },
  { name: 'BitLockerProtection', judge: windows(judgeBitLocker), healthy: '{"shellProtection":1}' },
  {
    name: 'Get-NetFirewallProfile',
    judge: windows(judgeWindowsFirewall),
    healthy:
      '{"firewallProducts":[],"firewall":[{"name":"Domain","enabled":1},{"name":"Private","enabled":1},{"name":"Public","enabled":1}]}',
  },
  {
    name: 'FirewallProduct',
    judge: windows(judgeWindowsFirewall),
    healthy: '{"firewallProducts":[{"name":"Pare-feu","state":266256}]}',
  },
  {
    name: 'AntiVirusProduct',
    judge: windows(judgeWindowsAntivirus),
    healthy: '{"antivirusProducts":[{"state":397568,"name":"Windows Defender"}]}',
  },
  {
    name: 'Get-MpComputerStatus',
    judge: windows(judgeWindowsAntivirus),
    healthy:
      '{"antivirusProducts":[],"defender":{"isRunning":true,"isWatching":true,"signatureDays":1}}',
  },
  {
    name: 'registry of the screen lock',
    judge: windows(judgeWindowsScreenLock),
    healthy: '{"lock":{"inactivitySeconds":600,"userScreenSaveActive":"1"}}',
  },
  {
    name: 'Confirm-SecureBootUEFI',
    judge: windows(judgeWindowsSecureBoot),
    healthy: '{"secureBoot":true,"secureBootState":1}',
  },
  {
    name: 'UEFISecureBootEnabled',
    judge: windows(judgeWindowsSecureBoot),
    healthy: '{"secureBootState":1}',
  },
  {
    name: 'Get-HotFix',
    judge: windows(judgeWindowsPatched),
    healthy: '{"isRestartNeeded":false,"updatedDaysAgo":12}',
  },
  {
    name: 'Win32_ComputerSystem',
    judge: windows(judgeWindowsPhysical),
    healthy: '{"computer":{"manufacturer":"Dell Inc.","model":"Latitude 7440"}}',
  },
  {
    name: 'reg.exe query',
    judge: (answer) => parseReg(answer, 'Enrolled', '1'),
    healthy: '\r\nHKEY_LOCAL_MACHINE\\SOFTWARE\\Corp\r\n    Enrolled    REG_DWORD    0x1\r\n\r\n',
    isEndNeeded: false,
  },
];
