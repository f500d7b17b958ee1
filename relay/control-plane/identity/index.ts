export { checkNewPassword, maxPasswordLength, minPasswordLength } from './password-rules.ts';
export { hashPassword, verifyPassword } from './scrypt.ts';
export {
  endExpiredSessions,
  endSessions,
  findLiveSession,
  isSessionLive,
  sessionEndMs,
  sessionMethods,
  startSession,
  touchSession,
  type SessionLimits,
} from './session.ts';
export {
  findUser,
  preparePassword,
  signIn,
  type AuthenticatedUser,
  type Credentials,
  type SignInOptions,
} from './sign-in.ts';
export {
  defaultThrottle,
  SignInThrottle,
  type SignInAttempt,
  type SignInSource,
} from './throttle.ts';
export { beginTotp, confirmTotp, hasTotp, removeTotp, totpStep, useTotp } from './totp.ts';
