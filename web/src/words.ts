/** How things are called to a contact. */

import type { Message, Step } from "./state";

/** Verbs with which the names of tools that only read begin. What another tool did, only the answer can say. */
const READING: Record<string, string> = {
  calculate: "Calculated",
  check: "Checked",
  fetch: "Looked up",
  find: "Looked for",
  get: "Looked up",
  list: "Looked through",
  lookup: "Looked up",
  read: "Read",
  search: "Searched",
};

/** `lookup_order` → `lookup order` */
export const spaced = (name: string) =>
  name
    .replace(/([a-z])([A-Z])/g, "$1 $2")
    .replace(/[_.\-/\s]+/g, " ")
    .trim()
    .toLowerCase();

/** A step as a line for the contact; empty for one that says nothing to them. */
export function stepLine({ kind, name }: Step): string {
  if (kind === "approval") return "Asked for approval";
  if (kind !== "tool") return "";
  const words = spaced(name);
  const [verb = "", ...rest] = words.split(" ");
  const read = Object.hasOwn(READING, verb) && rest.length > 0;
  return read ? `${READING[verb]} ${rest.join(" ")}` : words.charAt(0).toUpperCase() + words.slice(1);
}

/** The lines of some steps, each once. */
export const stepLines = (steps: readonly Step[]) => [...new Set(steps.map(stepLine).filter(Boolean))];

export const authorOf: Record<Message["role"], string> = { contact: "You", agent: "Agent", operator: "Operator" };

const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat("en", { weekday: "long", day: "numeric", month: "long" });
const moment = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false });

export const timeOf = (at: string) => (at ? clock.format(new Date(at)) : "");
export const momentOf = (at: string) => (at ? moment.format(new Date(at)) : "");

/** `Today`, `Yesterday`, or the date; empty for no time. */
export function dayOf(at: string, now = new Date()): string {
  if (!at) return "";
  const then = new Date(at);
  const days = Math.round((new Date(now).setHours(0, 0, 0, 0) - new Date(then).setHours(0, 0, 0, 0)) / 86_400_000);
  return days === 0 ? "Today" : days === 1 ? "Yesterday" : day.format(then);
}
