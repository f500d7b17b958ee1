export { knownBrowserLifeMs, openKnownBrowser, sealKnownBrowser } from './known-browser.ts';
export { isMultiFactor, isPhishingResistant } from './methods.ts';
export { checkNewPassword, maxPasswordLength, minPasswordLength } from './password-rules.ts';
export { hashPassword, verifyPassword } from './scrypt.ts';
export {
  beginSignIn,
  findOpenSignIn,
  proveSignIn,
  redeemSignIn,
  refuseSignIn,
  keepPasskeyChallenge,
  takePasskeyChallenge,
  signInLifeMs,
  type Proof,
  type ProvidedGrant,
} from './sign-ins.ts';
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
  browserSessionLifeMs,
  endBrowserSession,
  endBrowserSessions,
  findBrowserSession,
  formTokenOf,
  keepChallenge,
  startBrowserSession,
  takeChallenge,
  type SignedInBrowser,
} from './browser-session.ts';
export { deviceWordLifeMs, isDeviceWord, sealDeviceWord } from './device-word.ts';
export {
  freshForMs,
  readFactors,
  whyNotChange,
  type Factors,
  type WhyNotChange,
} from './factors.ts';
export {
  addPasskey,
  listPasskeys,
  newPasskeyOptions,
  passkeyOptions,
  provePasskey,
  relyingPartyOf,
  removePasskey,
  removePasskeys,
  verifyNewPasskey,
  type RelyingParty,
} from './passkeys.ts';
export { countRecoveryCodes, makeRecoveryCodes, removeRecoveryCodes } from './recovery-codes.ts';
export { useSecondFactor } from './second-factor.ts';
export {
  findUser,
  isActive,
  preparePassword,
  provePassword,
  proveSecondFactor,
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
