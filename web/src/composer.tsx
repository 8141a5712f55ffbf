import { useEffect, useRef, useState } from "preact/hooks";

/** The longest message that the services take. */
const LONGEST = 16_384;

/** Where the contact writes: Enter sends, Shift+Enter begins a line. */
export function Composer({ onSend }: { onSend: (text: string) => void }) {
  const [text, setText] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => field.current!.focus({ preventScroll: true }), []);

  const send = () => {
    if (text.trim() === "") return;
    onSend(text.trim());
    setText("");
    field.current!.focus();
  };
  const key = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };

  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <label class="hidden" for="message">
        Message
      </label>
      <textarea
        id="message"
        ref={field}
        rows={1}
        maxLength={LONGEST}
        placeholder="Write a message"
        enterkeyhint="send"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={key}
      />
      <button class="primary" aria-label="Send" disabled={text.trim() === ""}>
        <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
          <path d="M12 19V5M5.5 11.5 12 5l6.5 6.5" />
        </svg>
      </button>
    </form>
  );
}
