/** `make`, done once for each object and kept as long as that is. The object must not change, and `undefined` is not kept. */
export function onceFor<K extends object, V>(make: (of: K) => V): (of: K) => V {
  const made = new WeakMap<K, V>()
  return (of) => {
    const kept = made.get(of)
    if (kept !== undefined) return kept
    const value = make(of)
    made.set(of, value)
    return value
  }
}
