/** The page: what was said, what is being done, and a place to write. */

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Approval } from "./approval";
import { Composer } from "./composer";
import type { Conversation } from "./conversation";
import { markdown } from "./markdown";
import { Mark } from "./notice";
import { busy, type Draft, type Message, type State } from "./state";
import { useFollowing } from "./following";
import { authorOf, dayOf, stepLines, timeOf } from "./words";

interface Props {
  state: State;
  conversation: Conversation;
  /** Who is signed in; empty where there is nothing to sign out of. */
  name: string;
  onLeave: () => void;
}

export function Chat({ state, conversation, name, onLeave }: Props) {
  const { scroller, following, toLatest } = useFollowing(state);
  const { wait } = state;
  return (
    <>
      <Header link={state.link} name={name} onLeave={onLeave} />
      <main ref={scroller} tabIndex={0} aria-label="Conversation">
        {state.link === "live" && state.messages.length + state.drafts.length === 0 && <Empty />}
        <ol class="messages">
          <Messages messages={state.messages} />
          {state.drafts.map((draft) => (
            <Unconfirmed key={draft.id} draft={draft} conversation={conversation} />
          ))}
          <Answering state={state} />
          {wait && (
            <li key="wait">
              <Approval
                key={wait.id}
                wait={wait}
                decided={state.decided === wait.id}
                onDecide={(approved) => conversation.decide(wait.id, approved)}
              />
            </li>
          )}
        </ol>
      </main>
      <footer>
        {!following && (
          <button class="latest" onClick={toLatest}>
            ↓ Latest message
          </button>
        )}
        <Composer
          onSend={(text) => {
            conversation.send(text);
            toLatest();
          }}
        />
      </footer>
      <Announcer state={state} />
    </>
  );
}

function Header({ link, name, onLeave }: { link: State["link"]; name: string; onLeave: () => void }) {
  const said = { loading: "Connecting…", live: "", offline: "Offline, will reconnect" }[link];
  return (
    <header>
      <Mark />
      <h1>Recado</h1>
      <p class={`link ${link}`} role="status">
        {said}
      </p>
      {name && (
        <p class="contact">
          <span>{name}</span>
          <button class="quiet" onClick={onLeave}>
            Sign out
          </button>
        </p>
      )}
    </header>
  );
}

const Empty = () => (
  <div class="empty">
    <h2>How can we help?</h2>
    <p>Write a message below. The answer appears here, and each step on the way to it.</p>
  </div>
);

function Messages({ messages }: { messages: readonly Message[] }) {
  let day = "";
  return messages.map((message) => {
    const next = dayOf(message.at) || day;
    const begins = next !== day;
    day = next;
    return [
      begins && (
        <li key={next} class="day">
          {next}
        </li>
      ),
      <Said key={message.sequence} message={message} />,
    ];
  });
}

function Said({ message }: { message: Message }) {
  const { role, text, at, steps } = message;
  const content = useMemo(() => (role === "contact" ? text : markdown(text)), [role, text]);
  return (
    <li class={`message ${role}`}>
      <Author>{authorOf[role]}</Author>
      <Done lines={stepLines(steps)} />
      <div class="text">{content}</div>
      {at && <time dateTime={at}>{timeOf(at)}</time>}
    </li>
  );
}

const Author = ({ children }: { children: ComponentChildren }) => <span class="author">{children}</span>;

const Done = ({ lines }: { lines: readonly string[] }) =>
  lines.length > 0 && (
    <ul class="steps" aria-label="Steps">
      {lines.map((line) => (
        <li key={line}>{line}</li>
      ))}
    </ul>
  );

const PROGRESS: Record<Draft["status"], string> = {
  sending: "Sending…",
  accepted: "Sent",
  unsent: "Not sent",
  refused: "Not sent",
};

function Unconfirmed({ draft, conversation }: { draft: Draft; conversation: Conversation }) {
  const { id, text, status, reason } = draft;
  const failed = status === "unsent" || status === "refused";
  return (
    <li class={`message contact ${status}`}>
      <Author>{authorOf.contact}</Author>
      <div class="text">{text}</div>
      <p class="progress" role={failed ? "alert" : undefined}>
        {PROGRESS[status]}
        {reason && `: ${reason}`}
        {failed && (
          <>
            <button class="quiet" onClick={() => conversation.retry(id)}>
              Retry
            </button>
            <button class="quiet" onClick={() => conversation.discard(id)}>
              Discard
            </button>
          </>
        )}
      </p>
    </li>
  );
}

/** The answer on its way: the steps so far, then its words as they come. */
function Answering({ state }: { state: State }) {
  const words = state.growing?.text ?? "";
  const content = useMemo(() => words && markdown(words), [words]);
  const lines = stepLines(state.steps);
  const thinking = busy(state) && !words;
  if (!thinking && !words && lines.length === 0) return null;
  return (
    <li class="message agent growing" aria-busy={state.wait === null}>
      <Author>{authorOf.agent}</Author>
      <Done lines={lines} />
      {words && <div class="text">{content}</div>}
      {thinking && (
        <div class="dots" role="img" aria-label="The answer is being written">
          <i />
          <i />
          <i />
        </div>
      )}
    </li>
  );
}

/** Says an answer, or a question, once to who listens to the page; the growing text stays silent. */
function Announcer({ state }: { state: State }) {
  const [said, setSaid] = useState("");
  const last = state.messages.at(-1);
  const first = useRef(true);
  useEffect(() => {
    if (state.link === "loading") return;
    if (!first.current && last && last.role !== "contact") setSaid(`${authorOf[last.role]}: ${last.text}`);
    first.current = false;
  }, [last?.sequence, state.link === "loading"]);
  return (
    <p class="announcer" aria-live="polite">
      {state.wait?.approve ? "Your approval is needed." : said}
    </p>
  );
}
