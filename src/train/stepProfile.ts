import type { Gpu, GpuCounters } from '../gpu/gpu.ts';
import { busyMs, Profiler, type Span } from '../gpu/profiler.ts';

export interface Profile {
  /** Steps that were timed. */
  steps: number;
  spans: Span[];
  /** Milliseconds of the timed steps: by the host's clock, and in which the device was inside kernels. */
  wallMs: number;
  busyMs: number;
  /** Readbacks, submits and dispatches of a step. */
  readbacks: number;
  submits: number;
  dispatches: number;
  /** The most bytes in use at once within the timed steps, by tag; each tag by itself. */
  peakByTag: Record<string, number>;
  /** Bytes of all buffers and textures that exist at the end, and how many of them the timed steps created. */
  held: number;
  created: number;
}

/** Steps before the timed ones, in which programs are compiled and the pool is filled; and steps that are timed. */
export const DEFAULT_WARM_UP = 3;
export const DEFAULT_STEPS = 5;

/**
 * Times the dispatches of steps from `start` to `finish`. What the steps compute stays what it is.
 * @throws Error on a device without timestamp queries
 */
export class StepProfile {
  readonly #gpu: Gpu;
  readonly #profiler: Profiler;
  readonly #before: GpuCounters;
  readonly #started: number;

  private constructor(gpu: Gpu) {
    this.#gpu = gpu;
    this.#profiler = new Profiler(gpu.device);
    gpu.profileWith(this.#profiler);
    gpu.forgetPeaks();
    this.#before = gpu.counters();
    this.#started = performance.now();
  }

  /** Waits until the device has done all that it was given, then begins. */
  static async start(gpu: Gpu): Promise<StepProfile> {
    await gpu.sync();
    return new StepProfile(gpu);
  }

  /** Ends after so many steps. */
  async finish(steps: number): Promise<Profile> {
    try {
      await this.#gpu.sync();
      const wallMs = performance.now() - this.#started;
      const after = this.#gpu.counters();
      const spans = await this.#profiler.collect(this.#gpu);
      const each = (key: 'readbacks' | 'submits' | 'dispatches'): number => (after[key] - this.#before[key]) / steps;
      return {
        steps,
        spans,
        wallMs,
        busyMs: busyMs(spans),
        readbacks: each('readbacks'),
        submits: each('submits'),
        dispatches: each('dispatches'),
        peakByTag: after.peakByTag,
        held: after.held,
        created: after.created - this.#before.created,
      };
    } finally {
      this.cancel();
    }
  }

  /** Detaches from the device without a result. */
  cancel(): void {
    this.#gpu.profileWith(null);
    this.#profiler.destroy();
  }
}

/**
 * Times a few steps of a training run under way: after the first ones of the session, and within one epoch, so that no validation is
 * counted. A session too short for both times what it has.
 */
export class TrainingProfile {
  readonly #gpu: Gpu;
  /** Steps until the profile begins. */
  #wait: number;
  #current: StepProfile | null = null;
  #steps = 0;
  #over = false;

  /** @param sessionSteps steps that this session will do, if nobody stops it */
  constructor(gpu: Gpu, sessionSteps: number) {
    this.#gpu = gpu;
    this.#wait = Math.min(DEFAULT_WARM_UP, sessionSteps - 1);
  }

  async stepBegins(): Promise<void> {
    if (this.#over || this.#current || this.#wait-- > 0) return;
    this.#current = await StepProfile.start(this.#gpu);
  }

  /**
   * @param last whether no step of the epoch, or of the session, follows
   * @returns the profile, once
   */
  async stepEnds(last: boolean): Promise<Profile | null> {
    const profile = this.#current;
    if (!profile) return null;
    this.#steps++;
    if (this.#steps < DEFAULT_STEPS && !last) return null;
    this.#current = null;
    this.#over = true;
    return profile.finish(this.#steps);
  }

  /** To be called when training ends, in whatever way. */
  end(): void {
    this.#current?.cancel();
    this.#current = null;
    this.#over = true;
  }
}
