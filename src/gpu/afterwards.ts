/** Runs `body`, then `after`, whether it fails or not; if it is asynchronous, when it has ended. */
export function afterwards<T>(body: () => T, after: () => void): T {
  let result: T;
  try {
    result = body();
  } catch (error) {
    after();
    throw error;
  }
  if (result instanceof Promise) return result.finally(after) as T;
  after();
  return result;
}
