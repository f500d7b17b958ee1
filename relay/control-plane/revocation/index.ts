export { openRevocationLog, type LogHead, type NewRevocation, type RevocationLog } from './log.ts';
