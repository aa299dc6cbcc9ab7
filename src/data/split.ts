import { UserError } from '../cli/errors.ts';
import type { ImageRecord } from './dataset.ts';
import type { Random } from './random.ts';
import { shownLabels } from './splitClasses.ts';

export interface Split {
  train: ImageRecord[];
  validation: ImageRecord[];
}

/**
 * Sets a share of the images apart, cell types in equal proportions: images are shuffled within the type that most of
 * their cells have, and each type gives its part of `ceil(fraction × images)` (largest remainders), at least one image and never
 * its last. Where an image holds several types, images then change sides until training has every class, and validation every class
 * that two or more images show, as far as that takes none from training.
 *
 * @param records images in a fixed order; both results keep it
 * @param fraction 0 ≤ fraction < 1; 0 gives no validation image
 * @param random decides the images; the same state gives the same split
 * @throws UserError for a fraction out of range
 */
export function stratifiedSplit(records: readonly ImageRecord[], fraction: number, random: Random): Split {
  if (!(fraction >= 0 && fraction < 1)) {
    throw new UserError(`the validation fraction is ${fraction}, expected a number from 0 to below 1`);
  }
  if (fraction === 0) return { train: [...records], validation: [] };
  const strata = new Map<number, number[]>();
  records.forEach((record, i) => {
    const label = commonestLabel(record);
    strata.set(label, [...(strata.get(label) ?? []), i]);
  });
  const groups = [...strata].sort(([a], [b]) => a - b).map(([, members]) => members);
  const counts = apportion(groups, Math.ceil(fraction * records.length));
  const inValidation = new Uint8Array(records.length);
  groups.forEach((members, g) => {
    const order = random.permutation(members.length);
    for (let i = 0; i < counts[g]; i++) inValidation[members[order[i]]] = 1;
  });
  coverClasses(records, inValidation, random);
  return {
    train: records.filter((_, i) => inValidation[i] === 0),
    validation: records.filter((_, i) => inValidation[i] === 1),
  };
}

/** The label of most cells, the lower one of equals; 0 for an image without cells. */
function commonestLabel(record: ImageRecord): number {
  const counts = new Map<number, number>();
  for (const { label } of record.annotations) counts.set(label, (counts.get(label) ?? 0) + 1);
  let best = 0;
  let most = 0;
  for (const [label, count] of counts) {
    if (count > most || (count === most && label < best)) {
      best = label;
      most = count;
    }
  }
  return best;
}

/** How many of each group go to validation: largest remainders of the proportional share, kept within 1 … size - 1. */
function apportion(groups: readonly number[][], total: number): number[] {
  const images = groups.reduce((sum, members) => sum + members.length, 0);
  const shares = groups.map((members) => (total * members.length) / images);
  const counts = shares.map(Math.floor);
  let left = total - counts.reduce((sum, count) => sum + count, 0);
  const byRemainder = shares.map((share, g) => ({ g, rest: share - Math.floor(share) }));
  byRemainder.sort((a, b) => b.rest - a.rest || a.g - b.g);
  for (const { g } of byRemainder) {
    if (left === 0) break;
    counts[g]++;
    left--;
  }
  return counts.map((count, g) => Math.min(Math.max(count, 1), groups[g].length - 1));
}

/**
 * Moves images until training has every class, and validation every class with two or more images where an image can be found
 * that takes no class from training.
 */
function coverClasses(records: readonly ImageRecord[], inValidation: Uint8Array, random: Random): void {
  const classesOf = records.map((record) => [...shownLabels(record)]);
  const sides = [new Map<number, number>(), new Map<number, number>()];
  const count = (side: number, label: number): number => sides[side].get(label) ?? 0;
  const place = (image: number, by: 1 | -1): void => {
    const side = inValidation[image];
    for (const label of classesOf[image]) sides[side].set(label, count(side, label) + by);
  };
  for (let i = 0; i < records.length; i++) place(i, 1);
  const move = (image: number): void => {
    place(image, -1);
    inValidation[image] = 1 - inValidation[image];
    place(image, 1);
  };
  const hadValidation = inValidation.includes(1);
  /** Whether an image on the other side shows what `side` lacks. */
  const shows = (image: number, side: number, label: number): boolean =>
    inValidation[image] !== side && classesOf[image].includes(label);
  const mayLeave = (side: number, label: number): boolean =>
    count(side, label) > 1 || (side === 1 && count(0, label) > 0);
  const labels = [...new Set(classesOf.flat())].sort((a, b) => a - b);
  for (const label of labels) {
    for (const lacking of [0, 1]) {
      if (count(lacking, label) > 0 || count(1 - lacking, label) < (lacking === 0 ? 1 : 2)) continue;
      const order = random.permutation(records.length);
      const movable =
        order.find((i) => shows(i, lacking, label) && classesOf[i].every((other) => mayLeave(1 - lacking, other))) ??
        (lacking === 0 ? order.find((i) => shows(i, lacking, label)) : undefined);
      if (movable !== undefined) move(movable);
    }
  }
  if (hadValidation && !inValidation.includes(1)) {
    const spare = random.permutation(records.length).find((i) => classesOf[i].every((label) => count(0, label) > 1));
    if (spare !== undefined) move(spare);
  }
}

/**
 * scikit-learn's `train_test_split(range(n), stratify=types, test_size=testSize, random_state=seed)`, index for index (its
 * StratifiedShuffleSplit over NumPy's legacy Mersenne Twister).
 *
 * @param types the class of each item, e.g. each image's cell type
 * @param testSize a share above 0 and below 1 (rounded up to whole items), or a number of items from 1
 * @param seed 0 … 2^32 - 1
 * @returns indices of the items in scikit-learn's order
 * @throws UserError where scikit-learn refuses: a class with one item, or a side with fewer items than classes
 */
export function trainTestSplit(
  types: readonly string[],
  testSize: number,
  seed: number,
): { train: number[]; test: number[] } {
  const classes = [...new Set(types)].sort();
  const members = classes.map((name) => types.flatMap((type, i) => (type === name ? [i] : [])));
  const testCount = testSize < 1 ? Math.ceil(testSize * types.length) : testSize;
  const trainCount = types.length - testCount;
  const single = members.findIndex((indices) => indices.length < 2);
  if (single >= 0)
    throw new UserError(`cannot split by type: "${classes[single]}" has one image only, expected 2 or more`);
  if (testCount < classes.length || trainCount < classes.length) {
    throw new UserError(
      `cannot split by type: ${trainCount} and ${testCount} images, expected ${classes.length} or more on each side`,
    );
  }
  const generator = new LegacyMersenneTwister(seed);
  const sizes = members.map((indices) => indices.length);
  const trainCounts = approximateMode(sizes, trainCount, generator);
  const rest = sizes.map((size, c) => size - trainCounts[c]);
  const testCounts = approximateMode(rest, testCount, generator);
  const train: number[] = [];
  const test: number[] = [];
  members.forEach((indices, c) => {
    const order = generator.permutation(indices);
    train.push(...order.slice(0, trainCounts[c]));
    test.push(...order.slice(trainCounts[c], trainCounts[c] + testCounts[c]));
  });
  return { train: generator.permutation(train), test: generator.permutation(test) };
}

/** scikit-learn's `_approximate_mode`: the most likely counts of `draws` from the classes, ties broken by the generator. */
function approximateMode(sizes: readonly number[], draws: number, generator: LegacyMersenneTwister): number[] {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const continuous = sizes.map((size) => (size / total) * draws);
  const counts = continuous.map(Math.floor);
  let missing = draws - counts.reduce((sum, count) => sum + count, 0);
  const remainders = continuous.map((value, c) => value - counts[c]);
  const levels = [...new Set(remainders)].sort((a, b) => b - a);
  for (const level of levels) {
    if (missing <= 0) break;
    const tied = remainders.flatMap((value, c) => (value === level ? [c] : []));
    const chosen = generator.permutation(tied).slice(0, Math.min(tied.length, missing));
    for (const c of chosen) counts[c]++;
    missing -= chosen.length;
  }
  return counts;
}

/** NumPy's `RandomState(seed)`: MT19937 (Matsumoto & Nishimura 1998) with the legacy `permutation`. */
class LegacyMersenneTwister {
  private readonly state = new Uint32Array(624);
  private at = 624;

  constructor(seed: number) {
    if (!(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32)) {
      throw new UserError(`the split's seed is ${seed}, expected a whole number from 0 to ${2 ** 32 - 1}`);
    }
    this.state[0] = seed;
    for (let i = 1; i < 624; i++) {
      const previous = this.state[i - 1];
      this.state[i] = Math.imul(1812433253, previous ^ (previous >>> 30)) + i;
    }
  }

  private uint32(): number {
    if (this.at === 624) this.refill();
    let y = this.state[this.at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  private refill(): void {
    const s = this.state;
    for (let i = 0; i < 624; i++) {
      const y = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff);
      s[i] = s[(i + 397) % 624] ^ (y >>> 1) ^ ((y & 1) !== 0 ? 0x9908b0df : 0);
    }
    this.at = 0;
  }

  /** A uniform integer 0 … max by masking and rejection, as `random_interval`. */
  private interval(max: number): number {
    const mask = max === 0 ? 0 : 2 ** (32 - Math.clz32(max)) - 1;
    let value: number;
    do value = (this.uint32() & mask) >>> 0;
    while (value > max);
    return value;
  }

  permutation(items: readonly number[]): number[] {
    const order = [...items];
    for (let i = order.length - 1; i > 0; i--) {
      const j = this.interval(i);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }
}
