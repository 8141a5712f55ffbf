import type { ComponentChildren } from "preact";

/** The page when there is no conversation to show: one thing to know. */
export function Notice({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <main class="notice">
      <Mark />
      <h1>{title}</h1>
      <p role="status">{children}</p>
    </main>
  );
}

/** Recado's sign: a message on a small sheet. */
export const Mark = () => <img class="mark" src="/favicon.svg" alt="" width="32" height="32" />;
