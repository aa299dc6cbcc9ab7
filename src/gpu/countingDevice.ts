import type { OpenedDevice } from './adapter.ts';

/*
 * A device that holds nothing and computes nothing, but answers as one of the same adapter would. Operators, pools, scopes and the tape
 * run on it as they are, so that the memory of a step is counted without taking any.
 */

const nothing = (): void => {};
const handle = (): object => ({});

/**
 * A device with the limits and features of `like`. Everything that is read back is 0.
 * @param like is not touched and may stay in use
 */
export function countingDevice(like: OpenedDevice): OpenedDevice {
  const { limits, features } = like.device;
  const pass = {
    setPipeline: nothing,
    setBindGroup: nothing,
    dispatchWorkgroups: nothing,
    dispatchWorkgroupsIndirect: nothing,
    end: nothing,
  };
  const encoder = {
    beginComputePass: () => pass,
    clearBuffer: nothing,
    copyBufferToBuffer: nothing,
    copyBufferToTexture: nothing,
    finish: handle,
  };
  const device = {
    limits,
    features,
    lost: new Promise<GPUDeviceLostInfo>(nothing),
    onuncapturederror: null,
    queue: { writeBuffer: nothing, submit: nothing, onSubmittedWorkDone: () => Promise.resolve() },
    pushErrorScope: nothing,
    popErrorScope: () => Promise.resolve(null),
    createBuffer: ({ size }: GPUBufferDescriptor) => ({
      size,
      destroy: nothing,
      mapAsync: () => Promise.resolve(),
      getMappedRange: (offset = 0, bytes = size - offset) => new ArrayBuffer(bytes),
      unmap: nothing,
    }),
    createTexture: () => ({ createView: handle, destroy: nothing }),
    createShaderModule: () => ({ getCompilationInfo: () => Promise.resolve({ messages: [] }) }),
    createBindGroupLayout: handle,
    createPipelineLayout: handle,
    createComputePipeline: handle,
    createComputePipelineAsync: () => Promise.resolve({}),
    createBindGroup: handle,
    createCommandEncoder: () => encoder,
    destroy: nothing,
  };
  return { ...like, device: device as unknown as GPUDevice, whileWaiting: undefined, counts: true };
}
