import type { DevicePosture } from '../../protocol/index.ts';

/** The platforms whose posture can be found out, and `other`. */
export type Platform = DevicePosture['platform'];

/** That which this process runs on. */
export function thisPlatform(): Platform {
  const { platform } = process;
  return platform === 'linux' || platform === 'darwin' || platform === 'win32' ? platform : 'other';
}
