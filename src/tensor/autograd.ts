import type { Condition } from '../gpu/condition.ts';
import { accumulate } from './accumulate.ts';
import type { Device } from './device.ts';
import type { DType, Tensor } from './tensor.ts';

/**
 * Computes one input's gradient. When `into` is given the kernel may add to it and return it; a thunk that ignores it
 * returns a new tensor, and the engine adds. It may return a view of `upstream`, never `upstream` itself.
 */
export type GradientThunk = (into?: Tensor) => Tensor;

/** Where a gradient goes: on to the node that made the input, or to a leaf. */
export interface Edge {
  input: string;
  node: GraphNode | null;
  leaf: Tensor | null;
  shape: readonly number[];
  dtype: DType;
}

/** The edge to an operator's input. */
export function edgeTo(input: string, tensor: Tensor): Edge {
  const { node, shape, dtype } = tensor;
  return { input, node, leaf: node ? null : tensor, shape, dtype };
}

/** One recorded application of an operator. It owns its saved tensors until it has been consumed or dropped. */
export interface GraphNode {
  id: number;
  operator: string;
  /** What its dispatches are profiled under. */
  label: string;
  /** Under which it was dispatched, and so is its backward pass. */
  condition: Condition | null;
  edges: Edge[];
  saved: Record<string, Tensor>;
  backward: (upstream: Tensor, into: Partial<Record<string, Tensor>>) => Partial<Record<string, GradientThunk>>;
  /** Sum of the gradients that have reached the output so far. */
  gradient: Tensor | null;
  released: boolean;
}

export function releaseNode(node: GraphNode): void {
  if (node.released) return;
  node.released = true;
  for (const tensor of Object.values(node.saved)) tensor.dispose();
  node.saved = {};
  node.edges = [];
  node.gradient?.dispose();
  node.gradient = null;
}

/** The gradient so far of what an edge leads to. */
function gradientAt({ node, leaf }: Edge): Tensor | null {
  return node ? node.gradient : (leaf?.grad ?? null);
}

/** A gradient that something else also views (an addition passes one gradient to both sides) must not be written to. */
function writableOf(current: Tensor | null): Tensor | undefined {
  return current?.storage.references === 1 ? current : undefined;
}

function setGradient(device: Device, { node, leaf }: Edge, gradient: Tensor): void {
  device.disown(gradient);
  if (node) node.gradient = gradient;
  else if (leaf) leaf.grad = gradient;
}

/**
 * A gradient that may be added to must be there before work adds to it that perhaps does not run: without that work it is what came before it, or 0.
 */
function prepareGradients(device: Device, { edges, condition }: GraphNode): void {
  if (!condition) return;
  for (const edge of edges) {
    const current = gradientAt(edge);
    if (edge.node?.condition === condition || writableOf(current)) continue;
    device.gpu.under(null, () => {
      const gradient = device.zeros(edge.shape, edge.dtype);
      if (current) accumulate(gradient, current);
      current?.dispose();
      setGradient(device, edge, gradient);
    });
  }
}

/** What can be added to, by input. Where two inputs are one tensor, only the first has it, since no kernel may bind it twice. */
function gradientsToAddTo(edges: readonly Edge[]): Partial<Record<string, Tensor>> {
  const into: Partial<Record<string, Tensor>> = {};
  const taken = new Set<Tensor>();
  for (const edge of edges) {
    const writable = writableOf(gradientAt(edge));
    if (!writable || taken.has(writable)) continue;
    taken.add(writable);
    into[edge.input] = writable;
  }
  return into;
}

function addInto(current: Tensor | null, thunk: GradientThunk, like: string): Tensor {
  const writable = writableOf(current);
  const gradient = thunk(writable);
  if (!current || gradient === current) return gradient;
  if (gradient.size !== current.size) {
    throw new Error(`${like}: gradients of [${gradient.shape}] and [${current.shape}] meet.`);
  }
  if (writable) {
    accumulate(writable, gradient);
    gradient.dispose();
    return writable;
  }
  if (gradient.storage.references === 1) {
    accumulate(gradient, current);
    current.dispose();
    return gradient;
  }
  const sum = current.device.detached(() => current.device.zeros(current.shape, current.dtype));
  accumulate(sum, current);
  accumulate(sum, gradient);
  current.dispose();
  gradient.dispose();
  return sum;
}

/** Computes a node's part of the gradients of its inputs. */
function passOn(device: Device, node: GraphNode, gradient: Tensor): void {
  const thunks = node.backward(gradient, gradientsToAddTo(node.edges));
  for (const edge of node.edges) {
    const thunk = thunks[edge.input];
    if (!thunk) throw new Error(`${node.operator} has no gradient rule for its input ${edge.input}.`);
    setGradient(device, edge, addInto(gradientAt(edge), thunk, `${node.operator}.${edge.input}`));
  }
}

/**
 * Runs the tape backwards from `roots` and adds to `grad` of every leaf that needs it. Nodes are visited from the last
 * recorded to the first, so each sees its whole gradient; each is freed as soon as it has been consumed, and its
 * activations with it. A second call on the same graph is an error.
 *
 * @param roots tensors with a graph. Several, such as the losses of a model, are scalars of which the sum is meant.
 * @param upstream of each root (same shape); by default 1 for tensors of one element.
 */
export function backward(device: Device, roots: Tensor | readonly Tensor[], upstream?: Tensor): void {
  const all = Array.isArray(roots) ? (roots as readonly Tensor[]) : [roots as Tensor];
  const starts = all.map((root) => {
    if (!root.node) throw new Error(`backward: ${root} was not computed from anything that requires a gradient.`);
    if (!upstream && root.size !== 1)
      throw new Error(`backward: ${root} has ${root.size} elements and needs an upstream gradient.`);
    return { node: root.node, root };
  });
  const nodes = new Set<GraphNode>();
  const waiting = starts.map(({ node }) => node);
  for (let node = waiting.pop(); node; node = waiting.pop()) {
    if (nodes.has(node)) continue;
    if (node.released)
      throw new Error(`backward: the graph of ${all.join(', ')} was already consumed (at ${node.operator}).`);
    nodes.add(node);
    for (const edge of node.edges) if (edge.node) waiting.push(edge.node);
  }
  const outer = device.gpu.label;
  const seed = upstream ?? device.detached(() => device.full([], 1));
  for (const { node, root } of starts) {
    // A root that is given twice, or that another is computed from, has a gradient of its own beside.
    node.gradient = node.gradient
      ? addInto(node.gradient, () => seed.view(root.shape), 'backward')
      : seed.view(root.shape);
  }
  if (!upstream) seed.dispose();
  for (const node of [...nodes].sort((a, b) => b.id - a.id)) {
    const gradient = node.gradient;
    if (gradient) {
      device.gpu.label = node.label && `${node.label}, backward`;
      device.noGrad(() =>
        device.scope(() => {
          prepareGradients(device, node);
          device.gpu.under(node.condition, () => passOn(device, node, gradient));
        }),
      );
    }
    releaseNode(node);
  }
  device.gpu.label = outer;
}
