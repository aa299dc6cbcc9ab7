import leven from 'leven';

/**
 * The name among `candidates` that a mistyped one most likely means: fewest edits without regard to case, the first of equals;
 * undefined where more than a third of its letters (and more than two) would have to change.
 */
export function nearestName(name: string, candidates: readonly string[]): string | undefined {
  const allowed = Math.max(2, Math.floor(name.length / 3));
  let best: { candidate: string; distance: number } | undefined;
  for (const candidate of candidates) {
    const distance = leven(name.toLowerCase(), candidate.toLowerCase());
    if (distance <= allowed && distance < (best?.distance ?? Number.POSITIVE_INFINITY)) best = { candidate, distance };
  }
  return best?.candidate;
}

/** The end of a sentence that refuses a name: ", did you mean 'x'?", or the names that there are where none is near. */
export function suggestion(name: string, candidates: readonly string[]): string {
  const nearest = nearestName(name, candidates);
  return nearest === undefined ? `, expected one of ${candidates.join(', ')}.` : `, did you mean '${nearest}'?`;
}
