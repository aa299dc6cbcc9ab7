import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Failed, Prepared, Ran, Ready, Request, Stored, Work } from './peers/work.ts';

/** A command that speaks the protocol of `peers/work.ts`. */
export interface PeerCommand {
  program: string;
  args: readonly string[];
  env?: NodeJS.ProcessEnv;
}

/** Milliseconds that an engine may take to answer: compilers of software adapters take seconds, whole models a minute. */
const PATIENCE = { start: 120_000, answer: 600_000 };

/** The last lines of stderr, for the sentence about a process that ended. */
const TAIL_LINES = 20;

/**
 * Another engine in a process of its own: it brings its own Dawn, and what it breaks is its own. Each answer is awaited, so only
 * one of all processes computes at a time.
 */
export class PeerProcess {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #stderr: string[] = [];
  readonly #closed: Promise<void>;
  readonly #kill = (): void => void this.#child.kill('SIGKILL');
  #ready: Ready | null = null;
  /** Why nothing more can be asked of it. */
  #broken: string | null = null;

  constructor({ program, args, env }: PeerCommand) {
    // In a group of its own, so that Ctrl-C on the terminal is the bench's to answer.
    this.#child = spawn(program, args, { env, stdio: ['pipe', 'pipe', 'pipe'], detached: true });
    this.#child.on('error', (error) => {
      this.#broken ??= error.message;
    });
    // The bench may end at once, at a second Ctrl-C.
    process.once('exit', this.#kill);
    this.#closed = new Promise((resolve) => {
      this.#child.on('close', () => {
        process.off('exit', this.#kill);
        resolve();
      });
    });
    // Told by the answer that is missing.
    this.#child.stdin?.on('error', () => undefined);
    createInterface({ input: this.#child.stderr as NodeJS.ReadableStream }).on('line', (line) => {
      this.#stderr.push(line);
      if (this.#stderr.length > TAIL_LINES) this.#stderr.shift();
    });
    const lines = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream });
    this.#lines = lines[Symbol.asyncIterator]();
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** True while it can be asked. */
  get alive(): boolean {
    return this.#broken === null;
  }

  /** Waits for its first line. @throws Error with its own reason where it cannot compute here */
  async start(): Promise<Ready> {
    this.#ready ??= await this.#answer<Ready>(PATIENCE.start);
    return this.#ready;
  }

  /** @throws Error with the engine's reason where it cannot do the work; it may be asked for other work unless it is not `alive` */
  async prepare(work: Work, inputs: Record<string, Stored>, folder: string): Promise<Prepared> {
    return this.#ask<Prepared>({ do: 'prepare', work, inputs, folder });
  }

  /** One run of what was prepared, in milliseconds of the engine's own clock. */
  async run(): Promise<number> {
    return (await this.#ask<Ran>({ do: 'run' })).ms;
  }

  /** Gives the memory of what was prepared back. */
  async release(): Promise<void> {
    if (this.alive) await this.#ask({ do: 'release' });
  }

  close(): void {
    this.#broken ??= 'it was closed';
    this.#kill();
  }

  async #ask<T>(request: Request): Promise<T> {
    if (this.#broken) throw new Error(this.#broken);
    this.#child.stdin?.write(`${JSON.stringify(request)}\n`);
    return this.#answer<T>(PATIENCE.answer);
  }

  async #answer<T>(patience: number): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), patience);
    });
    const line = await Promise.race([this.#lines.next(), late]).finally(() => clearTimeout(timer));
    if (line === 'late') {
      this.close();
      this.#broken = `it did not answer within ${patience / 1000} s`;
      throw new Error(this.#broken);
    }
    if (line.done) {
      // Its exit code and its last words may come behind the end of stdout.
      await this.#closed;
      // What it said last, where that is an error; the reason of a process that was killed is its signal.
      const said = this.#stderr.findLast((text) => /error/i.test(text))?.trim();
      this.#broken ??= `its process ended (${said ?? this.#child.signalCode ?? `exit code ${this.#child.exitCode}`})`;
      throw new Error(this.#broken);
    }
    const answer = JSON.parse(line.value) as T | Failed;
    if (typeof answer === 'object' && answer !== null && 'error' in answer) throw new Error(answer.error);
    return answer as T;
  }
}
