import type { GraphNode } from './autograd.ts';
import { Tensor } from './tensor.ts';

/** What a scope owns: handles and graph nodes made inside it. */
export class Scope {
  readonly tensors = new Set<Tensor>();
  readonly nodes = new Set<GraphNode>();
}

/** The tensors inside a scope's result: itself, or members of arrays, maps and plain objects, however deep. */
export function tensorsIn(value: unknown, found: Set<Tensor> = new Set()): Set<Tensor> {
  if (value instanceof Tensor) found.add(value);
  else if (Array.isArray(value)) for (const member of value) tensorsIn(member, found);
  else if (value instanceof Map) for (const member of value.values()) tensorsIn(member, found);
  else if (value !== null && typeof value === 'object') {
    const prototype = Object.getPrototypeOf(value);
    if (prototype === Object.prototype || prototype === null)
      for (const member of Object.values(value)) tensorsIn(member, found);
  }
  return found;
}

/** Nodes that `tensors` were computed from, walking back within `nodes` only. */
export function reachableNodes(tensors: Iterable<Tensor>, nodes: ReadonlySet<GraphNode>): Set<GraphNode> {
  const reached = new Set<GraphNode>();
  const waiting: GraphNode[] = [];
  const visit = (node: GraphNode | null): void => {
    if (node && nodes.has(node) && !reached.has(node)) {
      reached.add(node);
      waiting.push(node);
    }
  };
  for (const tensor of tensors) visit(tensor.node);
  for (let node = waiting.pop(); node; node = waiting.pop()) {
    for (const edge of node.edges) if (edge.node) visit(edge.node);
  }
  return reached;
}
