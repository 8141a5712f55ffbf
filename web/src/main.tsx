import "./style.css";

import { render, type VNode } from "preact";
import { Refused } from "./api";
import { Chat } from "./chat";
import { type ClientConfig, loadConfig } from "./config";
import { type Contact, open } from "./conversation";
import { Notice } from "./notice";
import { Pause } from "./pause";
import { SignIn } from "./signin";
import type { State } from "./state";

const page = document.getElementById("page")!;
const show = (content: VNode) => render(content, page);

const SIGN_IN = "Open the address that make dev printed: with its key this browser is let in.";

/** On a development machine the cookie of the printed address says who it is. */
const byCookie: Contact = { name: "", credentials: async () => ({}), signOut: async () => {} };

async function start(): Promise<void> {
  const config = await configured();
  const contact = config.live === "firestore" ? await signedIn(config) : byCookie;
  const leave = async () => {
    sessionStorage.clear(); // what was not sent is nobody else's
    await contact.signOut();
    location.reload();
  };

  let state: State;
  let drawing = false;
  const draw = () => {
    drawing = false;
    show(<Chat state={state} conversation={conversation} name={contact.name} onLeave={leave} />);
  };
  const changed = (latest: State) => {
    state = latest;
    if (!drawing) requestAnimationFrame(draw);
    drawing = true; // once a frame, however many words come in it
  };
  const conversation = await open(config, contact, changed, (error) => {
    drawing = true; // nothing is drawn any more
    refused(error);
  });
}

async function configured(): Promise<ClientConfig> {
  for (const pause = new Pause(); ; await pause.wait()) {
    try {
      return await loadConfig();
    } catch (error) {
      if (error instanceof Refused) throw error;
      show(<Notice title="Not connected">The service does not answer. Trying again…</Notice>);
    }
  }
}

async function signedIn(config: ClientConfig): Promise<Contact> {
  const { startAuth } = await import("./auth");
  const auth = startAuth(config.firebase!);
  for (;;) {
    const contact = await auth.contact();
    if (contact) return contact;
    await new Promise<void>((done) => show(<SignIn auth={auth} onDone={done} />));
  }
}

function refused(error: Refused): void {
  const title = error.status === 401 ? "Please sign in" : "This did not work";
  show(<Notice title={title}>{error.status === 401 ? SIGN_IN : error.message}</Notice>);
}

start().catch((error: unknown) => {
  if (!(error instanceof Refused)) throw error;
  refused(error);
});
