import type { OpenedDevice } from '../gpu/adapter.ts';
import { afterwards } from '../gpu/afterwards.ts';
import type { Condition } from '../gpu/condition.ts';
import { Gpu } from '../gpu/gpu.ts';
import { defineProgram, perElement, workgroupsFor } from '../gpu/program.ts';
import { backward, type GraphNode, releaseNode } from './autograd.ts';
import { encodeHalves } from './halves.ts';
import { reachableNodes, Scope, tensorsIn } from './scope.ts';
import { bytesOf, type DType, hostValues, Storage, sizeOf, Tensor } from './tensor.ts';

const fill = defineProgram({
  name: 'fill',
  uniforms: { count: 'u32', value: 'f32' },
  bindings: { y: 'write' },
  elementwise: ['y'],
  code: () => perElement('y[i] = u.value;'),
});

/** Tensors on one adapter: creation, scopes, the tape. Everything a kernel needs hangs on it. */
export class Device {
  readonly gpu: Gpu;
  #scopes: Scope[] = [];
  #recording = true;
  /** What `gpu.condition` counts by. */
  #counted: Tensor | null = null;
  #tag = 'activations';
  #nextNode = 1;

  constructor(opened: OpenedDevice) {
    this.gpu = new Gpu(opened);
  }

  get gradEnabled(): boolean {
    return this.#recording;
  }

  /** Whether tensors of dtype `f16` are to be had. */
  get hasHalves(): boolean {
    return this.gpu.device.features.has('shader-f16');
  }

  /** Uninitialised memory of a shape; a pooled buffer holds whatever was there before. */
  empty(shape: readonly number[], dtype: DType = 'f32'): Tensor {
    if (shape.some((extent) => !Number.isInteger(extent) || extent < 0)) throw new Error(`[${shape}] is no shape.`);
    if (dtype === 'f16' && !this.hasHalves) throw new Error(`${this.gpu.opened.info.name} has no shader-f16.`);
    const storage = new Storage(this.gpu, { bytes: sizeOf(shape) * bytesOf(dtype), tag: this.#tag });
    return this.adopt(new Tensor(this, storage, [...shape], dtype));
  }

  zeros(shape: readonly number[], dtype: DType = 'f32'): Tensor {
    const tensor = this.empty(shape, dtype);
    if (tensor.size > 0) this.gpu.clear(tensor.buffer, tensor.bytes);
    return tensor;
  }

  full(shape: readonly number[], value: number): Tensor {
    const tensor = this.empty(shape);
    this.gpu.dispatch(fill, {
      buffers: { y: tensor },
      uniforms: { count: tensor.size, value },
      workgroups: workgroupsFor(tensor.size),
    });
    return tensor;
  }

  /** A tensor of host values: floats (rounded for `'f16'`), or integers when `dtype` is `'i32'` or `'u32'`. */
  tensor(
    data: Float32Array | Int32Array | Uint32Array | readonly number[],
    shape: readonly number[],
    dtype?: DType,
  ): Tensor {
    const type: DType = dtype ?? (data instanceof Int32Array ? 'i32' : data instanceof Uint32Array ? 'u32' : 'f32');
    if (data.length !== sizeOf(shape)) throw new Error(`${data.length} values do not fill [${shape}].`);
    if (type === 'f16') {
      const halves = this.empty(shape, type);
      this.gpu.write(halves.buffer, encodeHalves(data));
      return halves;
    }
    const Typed = type === 'f32' ? Float32Array : type === 'i32' ? Int32Array : Uint32Array;
    const host = data instanceof Typed ? data : new Typed(data as readonly number[]);
    const tensor = this.empty(shape, type);
    this.gpu.write(tensor.buffer, host as ArrayBufferView<ArrayBuffer>);
    return tensor;
  }

  /** The values of several tensors at the price of one wait; see `Tensor.data`. */
  async readAll(tensors: readonly Tensor[]): Promise<(Float32Array | Int32Array | Uint32Array)[]> {
    const copies = await this.gpu.readAll(tensors.map(({ buffer, bytes }) => ({ buffer, bytes })));
    return copies.map((bytes, index) => hostValues(bytes, tensors[index].dtype));
  }

  /** A trainable leaf that no scope owns; dispose it yourself. */
  parameter(data: Float32Array, shape: readonly number[], name: string): Tensor {
    const tensor = this.detached(() => this.tagged('parameters', () => this.tensor(data, shape)));
    tensor.name = name;
    tensor.requiresGrad = true;
    return tensor;
  }

  /** Memory allocated inside `make` is counted under `tag`. */
  tagged<T>(tag: string, make: () => T): T {
    const outer = this.#tag;
    this.#tag = tag;
    try {
      return make();
    } finally {
      this.#tag = outer;
    }
  }

  /** Dispatches inside `body` are profiled under `label`, and so are those of its backward pass. Also for asynchronous bodies. */
  labelled<T>(label: string, body: () => T): T {
    const outer = this.gpu.label;
    this.gpu.label = label;
    return afterwards(body, () => {
      this.gpu.label = outer;
    });
  }

  /**
   * Dispatches inside `body`, and those of its backward pass, run only where the list that `count` (u32 [1]) tells the length of reaches into this
   * part of it; see `Condition`. Where it does not, tensors made inside hold anything, and only operators that know of the condition may read them
   * outside (`catParts`); gradients that leave `body` then add nothing. Also for asynchronous bodies.
   */
  onlyWithin<T>(count: Tensor, part: Omit<Condition, 'count'>, body: () => T): T {
    const outer = this.#counted;
    this.#counted = count;
    return afterwards(
      () => this.gpu.under({ ...part, count: count.buffer }, body),
      () => {
        this.#counted = outer;
      },
    );
  }

  /** Puts a handle under the care of the current scope. */
  adopt(tensor: Tensor): Tensor {
    this.#scopes.at(-1)?.tensors.add(tensor);
    return tensor;
  }

  /** Takes a handle out of the care of every scope: it lives until `dispose()`. */
  disown(tensor: Tensor): Tensor {
    for (const scope of this.#scopes) scope.tensors.delete(tensor);
    return tensor;
  }

  /** The tensor that `make` returns belongs to no scope. */
  detached(make: () => Tensor): Tensor {
    return this.disown(make());
  }

  /**
   * Runs `body` and frees every tensor it made, except those inside its result, which pass to the scope around it, with
   * the part of the graph that made them. Works for synchronous and asynchronous bodies, which must not interleave: one
   * flow at a time.
   */
  scope<T>(body: () => T): T {
    const scope = new Scope();
    this.#scopes.push(scope);
    let result: T;
    try {
      result = body();
    } catch (error) {
      this.#close(scope, undefined);
      throw error;
    }
    if (result instanceof Promise) {
      return result.then(
        (value: unknown) => {
          this.#close(scope, value);
          return value;
        },
        (error: unknown) => {
          this.#close(scope, undefined);
          throw error;
        },
      ) as T;
    }
    this.#close(scope, result);
    return result;
  }

  #close(scope: Scope, result: unknown): void {
    if (this.#scopes.at(-1) !== scope) throw new Error('Scopes interleave: an asynchronous scope was not awaited.');
    this.#scopes.pop();
    const parent = this.#scopes.at(-1);
    const kept = tensorsIn(result);
    const nodes = reachableNodes(kept, scope.nodes);
    for (const node of scope.nodes) {
      if (nodes.has(node)) parent?.nodes.add(node);
      else releaseNode(node);
    }
    for (const tensor of scope.tensors) {
      if (kept.has(tensor)) parent?.tensors.add(tensor);
      else tensor.dispose();
    }
  }

  /** Runs `body` without recording: nothing is saved for a backward pass. Also for asynchronous bodies. */
  noGrad<T>(body: () => T): T {
    return this.#recorded(false, body);
  }

  /** Runs `body` with recording, within a `noGrad` too: for what a backward pass computes again. Also for asynchronous bodies. */
  withGrad<T>(body: () => T): T {
    return this.#recorded(true, body);
  }

  #recorded<T>(recording: boolean, body: () => T): T {
    const outer = this.#recording;
    this.#recording = recording;
    return afterwards(body, () => {
      this.#recording = outer;
    });
  }

  /** Hangs a node on the tape; it lives as long as the scopes that hold what was computed from it. */
  record(node: Omit<GraphNode, 'id' | 'label' | 'condition' | 'gradient' | 'released'>): GraphNode {
    const full: GraphNode = {
      ...node,
      id: this.#nextNode++,
      label: this.gpu.label,
      condition: this.gpu.condition,
      gradient: null,
      released: false,
    };
    const counted = this.#counted;
    if (full.condition && counted) full.saved = { ...node.saved, 'condition.count': counted.view(counted.shape) };
    this.#scopes.at(-1)?.nodes.add(full);
    return full;
  }

  /** Adds the gradients of `roots` (of their sum, if they are several) to their leaves; see `autograd.ts`. */
  backward(roots: Tensor | readonly Tensor[], upstream?: Tensor): void {
    this.tagged('gradients', () => backward(this, roots, upstream));
  }
}
