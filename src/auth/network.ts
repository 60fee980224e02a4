/**
 * Where a host of a URL lies, as far as its text tells: a name that resolves to a private address is
 * not known here. `hostname` is what `URL` answers, which writes every form of an address in one way.
 */
export function networkOf(hostname: string): 'public' | 'private' | 'loopback' {
  const host = hostname.toLowerCase().replace(/\.$/, '')
  if (host === 'localhost' || host.endsWith('.localhost')) return 'loopback'
  if (host.startsWith('[')) return networkOfIpv6(host.slice(1, -1))
  return /^\d+\.\d+\.\d+\.\d+$/.test(host) ? networkOfIpv4(host.split('.').map(Number)) : 'public'
}

function networkOfIpv4([a = 0, b = 0, c = 0]: number[]) {
  if (a === 127) return 'loopback'
  const reserved =
    a === 0 ||
    a === 10 ||
    (a === 100 && b >= 64 && b < 128) ||
    (a === 169 && b === 254) ||
    (a === 172 && b >= 16 && b < 32) ||
    (a === 192 && b === 168) ||
    (a === 192 && b === 0 && (c === 0 || c === 2)) ||
    (a === 198 && (b === 18 || b === 19)) ||
    (a === 198 && b === 51 && c === 100) ||
    (a === 203 && b === 0 && c === 113) ||
    a >= 224
  return reserved ? 'private' : 'public'
}

function networkOfIpv6(address: string) {
  if (address === '::1') return 'loopback'
  const [first = '', second = ''] = address.split(':')
  // Only 2000::/3 is given out to the public; everything else, mapped IPv4 addresses too, is not.
  if (!/^[23][0-9a-f]{3}$/.test(first)) return 'private'
  // 6to4 and Teredo carry an IPv4 address inside; 2001:db8 is for documentation.
  return first === '2002' || (first === '2001' && ['', '0', 'db8'].includes(second)) ? 'private' : 'public'
}
