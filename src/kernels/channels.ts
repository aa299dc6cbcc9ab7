import type { ElementType } from '../gpu/program.ts';

/**
 * Kernels over [..., C] tensors handle four channels at a time where C allows: on software adapters a load costs much more
 * than the arithmetic on it, and a vec4 load costs as much as one float's.
 */
export type ChannelFlags = { width: 1 | 4 };

/** How C channels are dealt out: `groups` loads of `width` channels each per pixel. */
export function channelGroups(channels: number): { flags: ChannelFlags; groups: number } {
  const width = channels % 4 === 0 ? 4 : 1;
  return { flags: { width }, groups: channels / width };
}

/** WGSL type of one load of floats. */
export function floatsOf({ width }: ChannelFlags): ElementType {
  return width === 4 ? 'vec4f' : 'f32';
}

/** WGSL type of one load of integers. */
export function intsOf({ width }: ChannelFlags): ElementType {
  return width === 4 ? 'vec4i' : 'i32';
}
