import { type PooledBuffer, type PooledTexture, TEXTURE_WIDTH } from './pool.ts';

/** Copies the first `texels` vectors of a buffer into a texture, floats or halves as it has them: whole rows, then the rest of one. */
export function copyToTexture(encoder: GPUCommandEncoder, from: PooledBuffer, to: PooledTexture, texels: number): void {
  const source = { buffer: from.gpuBuffer, bytesPerRow: TEXTURE_WIDTH * to.texelBytes };
  const rows = Math.floor(texels / TEXTURE_WIDTH);
  const rest = texels % TEXTURE_WIDTH;
  if (rows > 0) {
    encoder.copyBufferToTexture({ ...source, offset: from.offset }, { texture: to.gpuTexture }, [TEXTURE_WIDTH, rows]);
  }
  if (rest > 0) {
    const offset = from.offset + rows * source.bytesPerRow;
    encoder.copyBufferToTexture({ ...source, offset }, { texture: to.gpuTexture, origin: [0, rows] }, [rest, 1]);
  }
}
