/** The session's events over HTTP: read as a stream, resumed where it broke off. */

import { type Credentials, Refused, reach } from "./api";
import { Pause } from "./pause";
import type { Action, SessionEvent } from "./state";

/** The service sends a comment every 15 s: after this silence the connection is dead, whatever the browser thinks. */
const SILENCE_MS = 40_000;
/** How long a page without a conversation waits before it asks whether another page has begun one. */
const EMPTY_MS = 5_000;

/** Where changes come from. */
export interface Source {
  /** Something was sent: there is something to follow now. */
  nudge(): void;
  close(): void;
}

/** Dispatches the events at `url` until it is closed; `onRefused` is told of a refusal that no repetition can mend. */
export function followEvents(
  url: string,
  credentials: Credentials,
  dispatch: (action: Action) => void,
  onRefused: (refused: Refused) => void,
): Source {
  const pause = new Pause();
  const closed = new AbortController();
  let last = "";

  const read = async () => {
    const lost = new AbortController();
    addEventListener("offline", () => lost.abort(), { signal: closed.signal, once: true });
    const signal = AbortSignal.any([lost.signal, closed.signal]);
    const headers = { ...(await credentials()), Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
    const response = await reach(url, { headers, signal, cache: "no-store" });
    dispatch({ type: "link", link: "live" });
    for await (const event of parse(chunks(response.body!, pause, lost))) {
      last = event.id || last;
      dispatch({ type: "event", event });
    }
  };

  const run = async () => {
    while (!closed.signal.aborted) {
      try {
        await read();
        await pause.wait(); // the service ended the stream in good order: its time was over
      } catch (error) {
        if (closed.signal.aborted) return;
        const empty = error instanceof Refused && error.status === 404;
        if (error instanceof Refused && !empty) return onRefused(error);
        dispatch({ type: "link", link: empty ? "live" : "offline" });
        await (empty ? pause.wait(EMPTY_MS) : pause.wait());
      }
    }
  };
  void run();
  return { nudge: () => pause.end(), close: () => closed.abort() };
}

/** The text of a body as it comes. A body that falls silent is given up through `lost`. */
async function* chunks(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  pause: Pause,
  lost: AbortController,
): AsyncGenerator<string> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const timer = setTimeout(() => lost.abort(), SILENCE_MS);
    const { done, value } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    pause.reset();
    yield value;
  }
}

/** Server-sent events as the HTML standard defines them, with JSON objects as data; comments are left out. */
export async function* parse(chunks: AsyncIterable<string>): AsyncGenerator<SessionEvent> {
  let rest = "";
  let event: string[] = [];
  for await (const chunk of chunks) {
    const lines = (rest + chunk).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    for (const line of lines) {
      if (line !== "") event.push(line);
      else {
        if (event.some((field) => field.startsWith("data:"))) yield eventOf(event);
        event = [];
      }
    }
  }
}

function eventOf(lines: readonly string[]): SessionEvent {
  const values = (name: string) =>
    lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).replace(/^ /, ""));
  return {
    id: values("id").at(-1) ?? "",
    event: values("event").at(-1) ?? "message",
    data: JSON.parse(values("data").join("\n")),
  };
}
