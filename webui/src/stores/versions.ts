// Two versions of one thing that two people have changed.

export function same(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other)
}

/** The fields in which two versions differ. */
export function differing<T extends object>(one: T, other: T): (keyof T)[] {
  return (Object.keys(one) as (keyof T)[]).filter((name) => !same(one[name], other[name]))
}

/** One version of two: of the named fields mine, of all others theirs. */
export function merged<T extends object>(mine: T, theirs: T, keepMine: ReadonlySet<keyof T>): T {
  const taken = Object.fromEntries([...keepMine].map((name) => [name, mine[name]]))
  return { ...theirs, ...taken }
}
