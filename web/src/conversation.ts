/** One conversation, put together: what is known of it, where changes come from, and what the contact can do. */

import { type Credentials, Refused, request, Unreachable } from "./api";
import type { ClientConfig } from "./config";
import { followEvents, type Source } from "./events";
import { Outbox } from "./outbox";
import { Pause } from "./pause";
import { type Action, initial, reduce, type State } from "./state";

const THREAD = "main";

/** The contact who is signed in. */
export interface Contact {
  credentials: Credentials;
  /** What the page calls them; empty where there is nothing to sign out of. */
  name: string;
  signOut(): Promise<void>;
}

export interface Conversation {
  send(text: string): void;
  retry(id: string): void;
  discard(id: string): void;
  /** The verdict on the wait with this id. Throws as `request` does. */
  decide(wait: string, approved: boolean): Promise<void>;
}

/** The contact's conversation; `changed` is called with each new state, `refused` when the contact has to sign in again. */
export async function open(
  config: ClientConfig,
  contact: Contact,
  changed: (state: State) => void,
  refused: (refused: Refused) => void,
): Promise<Conversation> {
  const { addresses, connection } = config;
  const where = { connection, thread: THREAD };
  const { session, view } = await repeated(() =>
    request<{ session: string; view: string }>(`${addresses.api}/v1/sessions`, where, contact.credentials),
  );
  const post = (path: string, body: object) =>
    request(`${addresses.ingest}/v1/sessions/${session}/${path}`, { ...where, ...body }, contact.credentials);

  let state = initial;
  const dispatch = (action: Action) => {
    const before = state;
    state = reduce(state, action);
    if (state.messages !== before.messages) outbox.drop(new Set(state.messages.map((message) => message.id)));
    if (state !== before) changed(state);
  };
  const outbox = new Outbox(
    async ({ id, text }) => {
      await post("messages", { id, text });
      source.nudge();
    },
    (draft) => dispatch({ type: "draft", draft }),
    sessionStorage,
    `recado/${session}`,
  );
  const source: Source =
    config.firebase !== null
      ? (await import("./firestore")).followView(config.firebase, view, dispatch, refused)
      : followEvents(`${addresses.api}/v1/sessions/${session}/events?${new URLSearchParams(where)}`, contact.credentials, dispatch, refused);
  outbox.restore();
  changed(state);

  return {
    send: (text) => outbox.add(text),
    retry: (id) => outbox.retry(id),
    discard: (id) => {
      outbox.drop(new Set([id]));
      dispatch({ type: "dropped", id });
    },
    decide: async (wait, approved) => {
      await post("verdicts", { wait, approved });
      dispatch({ type: "decided", wait });
    },
  };
}

/** The result of the first try that reaches the service. */
async function repeated<Result>(attempt: () => Promise<Result>): Promise<Result> {
  const pause = new Pause();
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      await pause.wait();
    }
  }
}
