// @vitest-environment happy-dom
import { beforeEach, expect, test, vi } from "vitest";
import { Refused, Unreachable } from "../src/api";
import { Outbox } from "../src/outbox";
import type { Draft } from "../src/state";

/** A service that takes, or fails as the list says. */
class Service {
  readonly taken: string[] = [];
  readonly shown: string[] = [];
  constructor(private readonly failures: Error[] = []) {}

  post = async (draft: Draft) => {
    const failure = this.failures.shift();
    if (failure) throw failure;
    this.taken.push(draft.text);
  };

  outbox = () =>
    new Outbox(this.post, (draft) => this.shown.push(`${draft.text}: ${draft.status}`), sessionStorage, "outbox");
}

const down = () => new Unreachable("down");
const until = vi.waitFor;
beforeEach(() => sessionStorage.clear());

test("messages go one at a time, in order, and over a short failure by themselves", async () => {
  const service = new Service([down()]);
  const outbox = service.outbox();
  outbox.add("one");
  outbox.add("two");
  await until(() => expect(service.shown.at(-1)).toBe("two: accepted"));
  expect(service.taken).toEqual(["one", "two"]);
});

test("a message that does not go is kept, and goes when it is sent again", async () => {
  const service = new Service([down(), down(), down()]);
  const outbox = service.outbox();
  outbox.add("one");
  await until(() => expect(service.shown).toEqual(["one: sending", "one: unsent"]), 5_000);
  window.dispatchEvent(new Event("online"));
  await until(() => expect(service.taken).toEqual(["one"]));
});

test("a refused message is not sent again by itself, and does not hold up the next", async () => {
  const service = new Service([new Refused(400, "text: too long")]);
  const outbox = service.outbox();
  outbox.add("one");
  outbox.add("two");
  await until(() => expect(service.taken).toEqual(["two"]));
  outbox.retry();
  expect(service.shown).toContain("one: refused");
  await until(() => expect(service.shown.at(-1)).toBe("two: accepted"));
});

test("a reload takes up what no source has shown, under the same id", async () => {
  const first = new Service([down(), down(), down()]);
  first.outbox().add("one");
  await until(() => expect(first.shown).toHaveLength(1));
  const second = new Service();
  second.outbox().restore();
  await until(() => expect(second.taken).toEqual(["one"]));
});

test("what a source has shown is forgotten", async () => {
  const first = new Service();
  const outbox = first.outbox();
  outbox.add("one");
  await until(() => expect(first.taken).toEqual(["one"]));
  const [kept] = JSON.parse(sessionStorage.getItem("outbox")!) as Draft[];
  outbox.drop(new Set([kept!.id]));
  const second = new Service();
  second.outbox().restore();
  expect(second.shown).toEqual([]);
});
