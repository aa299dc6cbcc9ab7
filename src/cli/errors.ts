/**
 * A mistake of the user's (a wrong path, option or file), told in one sentence that names it and says what was expected.
 * The CLI prints the message alone and ends with `exitCode`; everything else that is thrown is a defect and keeps its stack.
 */
export class UserError extends Error {
  override readonly name = 'UserError';
  readonly exitCode: number;
  constructor(message: string, exitCode = 2) {
    super(message);
    this.exitCode = exitCode;
  }
}
