/** What the page knows of its conversation: one model, fed by server-sent events or by view documents.
 *
 * `reduce` is pure. Durable facts carry the session's sequence number: what was seen once changes nothing again.
 */

export interface Message {
  sequence: number;
  role: "contact" | "agent" | "operator";
  /** The contact's messages: the id under which the page sent it. */
  id: string;
  text: string;
  /** ISO time; empty where the source does not say. */
  at: string;
  /** What the run did for this answer, as far as the page was there to see it. */
  steps: readonly Step[];
}

export interface Step {
  sequence: number;
  step: string;
  kind: string;
  name: string;
}

/** What the run waits for. */
export interface Wait {
  id: string;
  /** A person decides on an approval; a timer ends at `until`. */
  kind: "approval" | "timer";
  tool: string;
  arguments: Record<string, unknown>;
  until: string;
  /** May the reader of this page decide. */
  approve: boolean;
}

/** An answer that is being written. */
export interface Growing {
  /** The model call that writes it: another one begins anew. */
  key: string;
  text: string;
}

/** A message of the contact's that no source has shown yet. */
export interface Draft {
  id: string;
  text: string;
  at: string;
  /** `accepted`: the service has it, and it cannot be lost any more. */
  status: "sending" | "accepted" | "unsent" | "refused";
  /** Why it was refused. */
  reason?: string;
}

export interface State {
  /** `loading` until the first words of the source. */
  link: "loading" | "live" | "offline";
  /** Number of the last durable event that is in here. */
  seen: number;
  running: boolean;
  messages: readonly Message[];
  steps: readonly Step[];
  growing: Growing | null;
  wait: Wait | null;
  /** Id of the wait that the contact has just decided. */
  decided: string;
  drafts: readonly Draft[];
}

/** The document at `view`, as the listener gives it. */
export interface View {
  sequence: number;
  status: "idle" | "running" | "waiting";
  messages: readonly (Omit<Message, "steps" | "at"> & { at: string | null })[];
  steps: readonly Step[];
  wait: Wait | null;
  text: { step: string; attempt: number; text: string } | null;
}

/** A server-sent event; `id` is empty for what is not durable. */
export interface SessionEvent {
  id: string;
  event: string;
  data: Record<string, unknown>;
}

export type Action =
  | { type: "event"; event: SessionEvent }
  | { type: "view"; view: View | null }
  | { type: "link"; link: State["link"] }
  | { type: "draft"; draft: Draft }
  | { type: "dropped"; id: string }
  | { type: "decided"; wait: string };

export const initial: State = {
  link: "loading",
  seen: 0,
  running: false,
  messages: [],
  steps: [],
  growing: null,
  wait: null,
  decided: "",
  drafts: [],
};

export function reduce(state: State, action: Action): State {
  switch (action.type) {
    case "event":
      return action.event.id ? durable(state, action.event) : growing(state, action.event);
    case "view":
      return action.view === null ? state : viewed(state, action.view);
    case "link":
      return { ...state, link: action.link };
    case "draft":
      return drafted(state, action.draft);
    case "dropped":
      return { ...state, drafts: state.drafts.filter((draft) => draft.id !== action.id) };
    case "decided":
      return { ...state, decided: action.wait };
  }
}

/** Is an answer on its way? */
export const busy = (state: State) =>
  state.wait === null && (state.running || state.drafts.some((draft) => draft.status === "accepted"));

function drafted(state: State, draft: Draft): State {
  if (state.messages.some((message) => message.id === draft.id)) return state; // the source was faster
  const known = state.drafts.some((other) => other.id === draft.id);
  const drafts = known ? state.drafts.map((other) => (other.id === draft.id ? draft : other)) : [...state.drafts, draft];
  return { ...state, drafts };
}

function durable(state: State, { id, event, data }: SessionEvent): State {
  const sequence = Number(id);
  if (sequence <= state.seen) return state;
  const next = { ...state, seen: sequence };
  const text = String(data.text ?? "");
  const at = String(data.at ?? "");
  switch (event) {
    case "message":
      return withMessage({ ...next, running: true }, { sequence, role: "contact", id: String(data.message), text, at, steps: [] });
    case "step": {
      const step = { sequence, step: String(data.step), kind: String(data.kind), name: String(data.name) };
      // a text that grows stays: the step of a tool may be told after the first words of the next model call
      return { ...next, running: true, wait: null, steps: [...state.steps, step] };
    }
    case "wait":
      return { ...next, wait: waitOf(data) };
    case "text": {
      const answer: Message = { sequence, role: "agent", id: "", text, at, steps: state.steps };
      return withMessage({ ...next, running: false, wait: null, steps: [], growing: null }, answer);
    }
    default:
      return next; // a kind that this page does not know yet
  }
}

function waitOf(data: Record<string, unknown>): Wait {
  return {
    id: String(data.wait),
    kind: data.kind === "timer" ? "timer" : "approval",
    tool: String(data.tool),
    arguments: (data.arguments ?? {}) as Wait["arguments"],
    until: String(data.until ?? ""),
    approve: data.approve === true,
  };
}

function growing(state: State, { event, data }: SessionEvent): State {
  const key = [data.run, data.step, data.attempt].join("/");
  const piece = String(data.text ?? "");
  if (event === "text.reset") return { ...state, growing: piece ? { key, text: piece } : null };
  if (event !== "text.delta") return state;
  const before = state.growing?.key === key ? state.growing.text : "";
  const have = [...before]; // the services count characters, not UTF-16 units
  const offset = Number(data.offset);
  if (offset > have.length) return state; // a piece is missing: the next reset, or the reply, has the whole
  return { ...state, running: true, growing: { key, text: have.slice(0, offset).join("") + piece } };
}

function withMessage(state: State, message: Message): State {
  const drafts = message.id ? state.drafts.filter((draft) => draft.id !== message.id) : state.drafts;
  return { ...state, messages: [...state.messages, message], drafts };
}

function viewed(state: State, view: View): State {
  if (view.sequence < state.seen) return state; // an older copy, from the listener's cache
  const known = new Map(state.messages.map((message) => [message.sequence, message]));
  const first = view.messages[0]?.sequence ?? Infinity;
  const latest = view.messages.at(-1);
  const shown = view.messages.map((message): Message => {
    const finished = message === latest && message.role === "agent" && view.status === "idle";
    return known.get(message.sequence) ?? { ...message, at: message.at ?? "", steps: finished ? state.steps : [] };
  });
  const ids = new Set(view.messages.map((message) => message.id));
  return {
    ...state,
    seen: view.sequence,
    running: view.status === "running",
    messages: [...state.messages.filter((message) => message.sequence < first), ...shown],
    steps: view.steps,
    wait: view.wait,
    growing: view.text && view.text.text ? { key: `${view.text.step}/${view.text.attempt}`, text: view.text.text } : null,
    drafts: state.drafts.filter((draft) => !ids.has(draft.id)),
  };
}
