import type { Services } from '../services.ts';

/** Another place to sign in at, as the page names it. */
export interface ProviderChoice {
  readonly name: string;
  readonly title: string;
}

/** The providers of this deployment, by name. */
export async function readProviderChoices({
  store,
}: Pick<Services, 'store'>): Promise<ProviderChoice[]> {
  const rows = await store.db
    .selectFrom('providers')
    .select(['name', 'settingsJson'])
    .orderBy('name')
    .execute();
  return rows.map(({ name, settingsJson }) => {
    const { title } = JSON.parse(settingsJson) as { readonly title?: unknown };
    return { name, title: typeof title === 'string' && title !== '' ? title : name };
  });
}

/** Where a sign-in goes on with a provider. */
export function providerPath(name: string, signIn: string): string {
  return `/oidc/${encodeURIComponent(name)}/begin?sign_in=${signIn}`;
}
