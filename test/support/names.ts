export const PASSWORDS = { owner: 'owner', control: 'control', app: 'app' } as const
export const TEMPLATE = 'stratum_template'
