import { fileSource } from './fileSource.ts';
import { openWeights, type WeightsFile } from './weightsFile.ts';

/** Weights in a file that is kept open. */
export interface OpenWeightsFile extends WeightsFile {
  /** Ends reading; further calls do nothing. */
  close(): void;
}

/** Opens weights of any form; close them after use. @throws UserError naming the file and what is wrong with it */
export async function openWeightsFile(path: string): Promise<OpenWeightsFile> {
  const source = fileSource(path);
  try {
    return { ...(await openWeights(source)), close: source.close };
  } catch (error) {
    source.close();
    throw error;
  }
}
