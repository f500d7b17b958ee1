/**
 * What PowerShell is asked, as one argument each. Without profile, prompt or the user's own modules; what fails is left out, and
 * its section is then unknown. Only what reads is called.
 */
const start = [
  "$ErrorActionPreference='SilentlyContinue'",
  "$ProgressPreference='SilentlyContinue'",
  "$env:PSModulePath=$PSHOME+'\\Modules'",
  '[Console]::OutputEncoding=[Text.Encoding]::UTF8',
  '$r=@{}',
];

const end = ['ConvertTo-Json -InputObject $r -Compress -Depth 4'];

const securityCenter = (section: string, className: string): string =>
  `$r.${section}=@(CimCmdlets\\Get-CimInstance -Namespace root/SecurityCenter2 -ClassName ${className}|` +
  'ForEach-Object{@{name=[string]$_.displayName;state=[long]$_.productState}})';

const registryValue = (member: string, key: string, value: string): string =>
  `$r.lock.${member}=(Get-ItemProperty -LiteralPath '${key}').'${value}'`;

const userDesktop = 'HKCU:\\Control Panel\\Desktop';
const policyDesktop = 'HKCU:\\Software\\Policies\\Microsoft\\Windows\\Control Panel\\Desktop';
const systemPolicies = 'HKLM:\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Policies\\System';

/** What may change at any time: firewall, antivirus, screen lock. */
export const stateScript = [
  ...start,
  '$r.firewall=@(NetSecurity\\Get-NetFirewallProfile -PolicyStore ActiveStore|' +
    'ForEach-Object{@{name=[string]$_.Name;enabled=[int]$_.Enabled}})',
  securityCenter('firewallProducts', 'FirewallProduct'),
  securityCenter('antivirusProducts', 'AntiVirusProduct'),
  // Servers have no security center, and this takes a second.
  'if($r.antivirusProducts.Count -eq 0){$m=Defender\\Get-MpComputerStatus;if($m){$r.defender=@{' +
    'isRunning=[bool]$m.AMServiceEnabled;isWatching=[bool]$m.RealTimeProtectionEnabled;' +
    'signatureDays=[int]$m.AntivirusSignatureAge}}}',
  '$r.lock=@{}',
  registryValue('inactivitySeconds', systemPolicies, 'InactivityTimeoutSecs'),
  ...(
    ['ScreenSaveActive', 'ScreenSaverIsSecure', 'ScreenSaveTimeOut', 'SCRNSAVE.EXE'] as const
  ).flatMap((value) => {
    const member = value.replace('.', '');
    return [
      registryValue(`user${member}`, userDesktop, value),
      registryValue(`policy${member}`, policyDesktop, value),
    ];
  }),
  ...end,
].join(';');

/** What changes slowly: disk encryption, secure boot, version, updates, the machine. */
export const systemScript = [
  ...start,
  '$d=$env:SystemDrive',
  '$r.shellProtection=(New-Object -ComObject Shell.Application).NameSpace($d).Self.' +
    "ExtendedProperty('System.Volume.BitLockerProtection')",
  '$b=BitLocker\\Get-BitLockerVolume -MountPoint $d',
  'if($b){$r.bitlocker=@{protection=[int]$b.ProtectionStatus;volume=[int]$b.VolumeStatus}}',
  '$s=SecureBoot\\Confirm-SecureBootUEFI',
  'if($s -is [bool]){$r.secureBoot=$s}',
  "$r.secureBootState=(Get-ItemProperty -LiteralPath 'HKLM:\\SYSTEM\\CurrentControlSet\\Control\\SecureBoot\\State').UEFISecureBootEnabled",
  '$o=CimCmdlets\\Get-CimInstance -ClassName Win32_OperatingSystem',
  "$u=(Get-ItemProperty -LiteralPath 'HKLM:\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion').UBR",
  'if($o){$r.os=@{version=[string]$o.Version;revision=[int]$u}}',
  '$c=CimCmdlets\\Get-CimInstance -ClassName Win32_ComputerSystem',
  'if($c){$r.computer=@{manufacturer=[string]$c.Manufacturer;model=[string]$c.Model}}',
  "$r.isRestartNeeded=[bool](Test-Path -LiteralPath 'HKLM:\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update\\RebootRequired')",
  '$h=Get-HotFix|Where-Object{$_.InstalledOn}|Sort-Object InstalledOn|Select-Object -Last 1',
  'if($h){$r.updatedDaysAgo=[int][Math]::Floor(((Get-Date)-$h.InstalledOn).TotalDays)}',
  ...end,
].join(';');
