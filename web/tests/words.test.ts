import { expect, test } from "vitest";
import { dayOf, stepLines } from "../src/words";

const step = (kind: string, name: string) => ({ sequence: 1, step: "s", kind, name });

test("steps are told in a contact's words, each once, and model calls not at all", () => {
  const steps = [step("model", "openai/x"), step("tool", "lookup_order"), step("tool", "lookup_order")];
  expect(stepLines(steps)).toEqual(["Looked up order"]);
});

test("what a tool that changes things achieved is not claimed: it may have been denied", () => {
  expect(stepLines([step("approval", "refund_order"), step("tool", "refund_order")])).toEqual([
    "Asked for approval",
    "Refund order",
  ]);
});

test("names that are no verbs, or that objects have by birth, are shown as they are", () => {
  expect(stepLines([step("tool", "weatherNow"), step("tool", "constructor x")])).toEqual(["Weather now", "Constructor x"]);
});

test("days are counted by the calendar, not by hours", () => {
  const now = new Date(2026, 10, 20, 0, 10);
  expect(dayOf(new Date(2026, 10, 20, 0, 5).toISOString(), now)).toBe("Today");
  expect(dayOf(new Date(2026, 10, 19, 23, 50).toISOString(), now)).toBe("Yesterday");
  expect(dayOf(new Date(2026, 10, 18, 12).toISOString(), now)).toBe("Wednesday, November 18");
});
