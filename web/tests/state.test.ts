import { describe, expect, test } from "vitest";
import { type Action, busy, type Draft, initial, reduce, type SessionEvent, type State, type View } from "../src/state";

const after = (...actions: Action[]): State => actions.reduce(reduce, initial);
const event = (id: number | "", kind: string, data: object): Action => ({
  type: "event",
  event: { id: String(id), event: kind, data: { run: 1, ...data } } as SessionEvent,
});
const draft = (status: Draft["status"], id = "m1"): Action => ({ type: "draft", draft: { id, text: "Where?", at: "", status } });
const asked = event(1, "message", { message: "m1", contact: "Ana", text: "Where?", at: "2026-11-20T10:00:00Z" });
const looked = event(2, "step", { step: "tool-1.0", kind: "tool", name: "lookup_order", seconds: 0.1 });
const waits = event(3, "wait", { wait: "w1", tool: "refund_order", arguments: { order_id: "1042" }, until: "", approve: true });
const answered = event(4, "text", { text: "There.", outcome: "answered" });
const delta = (offset: number, text: string, attempt = 1) => event("", "text.delta", { step: "model-2", attempt, offset, text });
const reset = (text: string, attempt = 1) => event("", "text.reset", { step: "model-2", attempt, text });
const view = (more: Partial<View>): Action => ({
  type: "view",
  view: { sequence: 1, status: "running", messages: [], steps: [], wait: null, text: null, ...more },
});
const said = (sequence: number, role: "contact" | "agent", id = "") => ({ sequence, role, id, text: `${sequence}`, at: null });

describe("a message of the contact's", () => {
  test("is shown at once and replaced by the event with its id", () => {
    expect(after(draft("sending")).drafts).toHaveLength(1);
    const state = after(draft("sending"), draft("accepted"), asked);
    expect([state.drafts.length, state.messages.length]).toEqual([0, 1]);
  });

  test("does not come back when its answer arrives after the event", () => {
    expect(after(draft("sending"), asked, draft("accepted")).drafts).toEqual([]);
  });

  test("is replaced by the view that shows it, and the others stay", () => {
    const state = after(draft("accepted"), draft("sending", "m2"), view({ messages: [said(1, "contact", "m1")] }));
    expect(state.drafts.map((other) => other.id)).toEqual(["m2"]);
  });

  test("can be given up", () => {
    expect(after(draft("unsent"), { type: "dropped", id: "m1" }).drafts).toEqual([]);
  });

  test("once accepted means that an answer is on its way", () => {
    expect([busy(after(draft("sending"))), busy(after(draft("accepted")))]).toEqual([false, true]);
  });
});

describe("durable events", () => {
  test("seen twice change nothing", () => {
    const once = after(asked, looked, answered);
    expect(after(asked, looked, answered, asked, looked, answered)).toEqual(once);
  });

  test("of a run that is over leave its steps at its answer", () => {
    const state = after(asked, looked, answered);
    expect(state.messages.map(({ role, steps }) => [role, steps.map((step) => step.name)])).toEqual([
      ["contact", []],
      ["agent", ["lookup_order"]],
    ]);
    expect([state.steps, state.running, state.seen]).toEqual([[], false, 4]);
  });

  test("of a kind that is not known yet only count", () => {
    expect(after(asked, event(2, "mood", {}))).toEqual({ ...after(asked), seen: 2 });
  });

  test("a wait is open until the next step, and stops the sign of work meanwhile", () => {
    const waiting = after(asked, looked, waits);
    expect([waiting.wait?.id, waiting.wait?.approve, busy(waiting)]).toEqual(["w1", true, false]);
    const timer = reduce(initial, event(3, "wait", { wait: "w2", kind: "timer", tool: "wait_until", until: "", approve: false }));
    expect(timer.wait?.kind).toBe("timer");
    const decided = reduce(waiting, event(4, "step", { step: "approve-tool-1.0", kind: "approval", name: "refund_order" }));
    expect([decided.wait, busy(decided)]).toEqual([null, true]);
  });
});

describe("the growing text", () => {
  test("is put together from pieces, by characters and not by UTF-16 units", () => {
    expect(after(asked, reset(""), delta(0, "👋 Hi"), delta(4, ", Ana")).growing?.text).toBe("👋 Hi, Ana");
  });

  test("takes a piece that overlaps, and leaves out one after a gap", () => {
    expect(after(reset("Hello"), delta(3, "lo you")).growing?.text).toBe("Hello you");
    expect(after(reset("Hello"), delta(9, "you")).growing?.text).toBe("Hello");
  });

  test("begins anew in a new attempt", () => {
    expect(after(reset("Hello"), reset("", 2), delta(0, "Good day", 2)).growing?.text).toBe("Good day");
    expect(after(reset("Hello"), delta(0, "Good day", 2)).growing?.text).toBe("Good day");
  });

  test("stays until the reply replaces it, whatever steps are told meanwhile", () => {
    const state = after(asked, reset("There"), looked, event(3, "step", { step: "model-2", kind: "model", name: "m" }));
    expect(state.growing?.text).toBe("There");
    expect(reduce(state, answered).growing).toBeNull();
  });
});

describe("a view", () => {
  test("gives the same state as the events do", () => {
    const steps = [{ sequence: 2, step: "tool-1.0", kind: "tool", name: "lookup_order" }];
    const wait = { id: "w1", kind: "approval" as const, tool: "refund_order", arguments: { order_id: "1042" }, until: "", approve: true };
    const messages = [{ ...said(1, "contact", "m1"), text: "Where?", at: "2026-11-20T10:00:00Z" }];
    const seen = after(view({ sequence: 3, status: "waiting", messages, steps, wait }));
    expect(seen).toEqual({ ...after(asked, looked, waits), running: false });
  });

  test("that is older than what was seen is not taken", () => {
    const state = after(view({ sequence: 5, status: "idle" }));
    expect(reduce(state, { type: "view", view: { ...(view({ sequence: 4 }) as { view: View }).view } })).toBe(state);
  });

  test("that was never written changes nothing", () => {
    expect(after({ type: "view", view: null })).toBe(initial);
  });

  test("shows only the latest messages: those before them stay", () => {
    const first = after(view({ sequence: 2, messages: [said(1, "contact", "m1"), said(2, "agent")] }));
    const state = reduce(first, view({ sequence: 3, messages: [said(2, "agent"), said(3, "contact", "m2")] }));
    expect(state.messages.map((message) => message.sequence)).toEqual([1, 2, 3]);
    expect(state.messages[1]).toBe(first.messages[1]); // not drawn again
  });

  test("with the answer keeps the steps that were seen on the way", () => {
    const steps = [{ sequence: 2, step: "tool-1.0", kind: "tool", name: "lookup_order" }];
    const state = after(
      view({ sequence: 2, messages: [said(1, "contact", "m1")], steps }),
      view({ sequence: 3, status: "idle", messages: [said(1, "contact", "m1"), said(3, "agent")] }),
    );
    expect(state.messages[1]?.steps).toEqual(steps);
  });

  test("replaces the growing text by what it says", () => {
    const text = { step: "model-1", attempt: 1, text: "Hel" };
    expect(after(view({ text })).growing?.text).toBe("Hel");
    expect(after(view({ text }), view({ text: { ...text, text: "Hello" } })).growing?.text).toBe("Hello");
    expect(after(view({ text }), view({})).growing).toBeNull();
  });
});
