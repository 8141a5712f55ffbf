/** Waiting before the next try: longer each time, not in step with others, and over at once when there is a reason. */
export class Pause {
  private tries = 0;
  private ended = false;
  private resolve: (() => void) | null = null;

  constructor(
    private readonly shortest = 500,
    private readonly longest = 15_000,
  ) {
    addEventListener("online", () => this.end());
  }

  /** It worked: the next pause is a short one again. */
  reset(): void {
    this.tries = 0;
  }

  /** Whoever waits goes on now; with nobody waiting, the next one does not wait. */
  end(): void {
    this.ended = true;
    this.resolve?.();
  }

  /** Resolves after the time, or when `end` is called. */
  async wait(milliseconds = this.next()): Promise<void> {
    if (!this.ended) {
      await new Promise<void>((resolve) => {
        this.resolve = resolve;
        setTimeout(resolve, milliseconds);
      });
    }
    this.ended = false;
    this.resolve = null;
  }

  private next(): number {
    return Math.min(this.longest, this.shortest * 2 ** this.tries++) * (0.5 + Math.random() / 2);
  }
}
