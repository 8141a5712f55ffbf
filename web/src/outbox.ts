/** The contact's messages on their way: one at a time, in order, each under its own id, so that a repetition is none. */

import { Refused } from "./api";
import { Pause } from "./pause";
import type { Draft } from "./state";

const TRIES = 3;
/** The service knows ids for longer than this: an older message might be answered twice. */
const FRESH_MS = 60 * 60 * 1000;

export class Outbox {
  private readonly pause = new Pause(300, 2_000);
  private drafts: Draft[] = [];
  private working = false;

  /** `post` throws as `request` does; `show` is told of every change of a draft; `storage` keeps them over a reload. */
  constructor(
    private readonly post: (draft: Draft) => Promise<unknown>,
    private readonly show: (draft: Draft) => void,
    private readonly storage: Pick<Storage, "getItem" | "setItem">,
    private readonly name: string,
  ) {
    addEventListener("online", () => this.retry());
  }

  /** Take up what a page before this one had not brought to its end. */
  restore(): void {
    const kept = JSON.parse(this.storage.getItem(this.name) ?? "[]") as Draft[];
    for (const draft of kept) {
      const fresh = Date.now() - Date.parse(draft.at) < FRESH_MS;
      if (draft.status === "refused") this.set(draft);
      else if (fresh) this.set({ ...draft, status: "sending" });
      else if (draft.status !== "accepted") this.set({ ...draft, status: "unsent" });
    }
    void this.work();
  }

  add(text: string): void {
    this.set({ id: crypto.randomUUID(), text, at: new Date().toISOString(), status: "sending" });
    void this.work();
  }

  /** Send again what did not go: the one with this id, or all that the service has not refused. */
  retry(id?: string): void {
    for (const draft of this.drafts)
      if (id === undefined ? draft.status === "unsent" : draft.id === id) this.set({ ...draft, status: "sending" });
    this.pause.end();
    void this.work();
  }

  /** The source shows it, or the contact gave it up. */
  drop(ids: ReadonlySet<string>): void {
    this.keep(this.drafts.filter((draft) => !ids.has(draft.id)));
  }

  private async work(): Promise<void> {
    if (this.working) return;
    this.working = true;
    for (let next = this.next(); next !== undefined; next = this.next()) this.set(await this.sent(next));
    this.working = false;
  }

  private next = () => this.drafts.find((draft) => draft.status === "sending");

  private async sent(draft: Draft): Promise<Draft> {
    this.pause.reset();
    for (let tries = 1; ; tries++) {
      try {
        await this.post(draft);
        return { ...draft, status: "accepted" };
      } catch (error) {
        if (error instanceof Refused) return { ...draft, status: "refused", reason: error.message };
        if (tries === TRIES || !navigator.onLine) return { ...draft, status: "unsent" };
        await this.pause.wait();
      }
    }
  }

  private set(draft: Draft): void {
    const known = this.drafts.some((other) => other.id === draft.id);
    this.keep(known ? this.drafts.map((other) => (other.id === draft.id ? draft : other)) : [...this.drafts, draft]);
    this.show(draft);
  }

  private keep(drafts: Draft[]): void {
    this.drafts = drafts;
    this.storage.setItem(this.name, JSON.stringify(drafts));
  }
}
