/** The one script of all pages: passkeys, and buttons that copy. Everything else works without it. */
export const script = `'use strict';
document.documentElement.classList.add('scripted');

const toBytes = (text) =>
  Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (sign) => sign.charCodeAt(0));
const toText = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
const withBytes = (list) => (list ?? []).map((one) => ({ ...one, id: toBytes(one.id) }));

async function use(options) {
  const { challenge, allowCredentials } = options;
  const credential = await navigator.credentials.get({
    publicKey: { ...options, challenge: toBytes(challenge), allowCredentials: withBytes(allowCredentials) },
  });
  const { authenticatorData, clientDataJSON, signature, userHandle } = credential.response;
  return answer(credential, {
    authenticatorData: toText(authenticatorData),
    clientDataJSON: toText(clientDataJSON),
    signature: toText(signature),
    ...(userHandle ? { userHandle: toText(userHandle) } : {}),
  });
}

async function make(options) {
  const { challenge, excludeCredentials, user } = options;
  const credential = await navigator.credentials.create({
    publicKey: {
      ...options,
      challenge: toBytes(challenge),
      user: { ...user, id: toBytes(user.id) },
      excludeCredentials: withBytes(excludeCredentials),
    },
  });
  const { attestationObject, clientDataJSON } = credential.response;
  return answer(credential, {
    attestationObject: toText(attestationObject),
    clientDataJSON: toText(clientDataJSON),
    transports: credential.response.getTransports?.() ?? [],
  });
}

function answer(credential, response) {
  const { id, rawId, type } = credential;
  return { id, rawId: toText(rawId), type, response, clientExtensionResults: {} };
}

function tell(form, text) {
  const place = form.querySelector('[data-said]');
  place.textContent = text;
  place.hidden = text === '';
}

for (const form of document.querySelectorAll('form[data-passkey]')) {
  if (!window.PublicKeyCredential) {
    form.hidden = true;
    continue;
  }
  const button = form.querySelector('button');
  form.addEventListener('submit', async (event) => {
    if (form.elements.credential.value !== '') return;
    event.preventDefault();
    button.disabled = true;
    tell(form, '');
    try {
      const asked = await fetch(form.dataset.options, {
        method: 'POST',
        headers: { accept: 'application/json' },
        body: new URLSearchParams(new FormData(form)),
      });
      if (!asked.ok) throw new Error(await asked.text());
      const options = await asked.json();
      const credential = form.dataset.passkey === 'make' ? await make(options) : await use(options);
      form.elements.credential.value = JSON.stringify(credential);
      form.submit();
    } catch (error) {
      const isOver = error.name === 'NotAllowedError' || error.name === 'AbortError';
      const isKnown = error.name === 'InvalidStateError';
      tell(form, isOver ? 'No passkey was used. Try again, or sign in another way.'
        : isKnown ? 'That passkey is here already.' : error.message);
      button.disabled = false;
    }
  });
}

for (const button of document.querySelectorAll('button[data-copy]')) {
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = 'Copied';
  });
}

// A way back brings forms back as they were, with what they had sent.
addEventListener('pageshow', (event) => {
  if (event.persisted) location.reload();
});
`;
