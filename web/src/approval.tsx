import { useState } from "preact/hooks";
import type { Wait } from "./state";
import { momentOf, spaced } from "./words";

interface Props {
  wait: Wait;
  /** The verdict was accepted; what follows from it is still to come. */
  decided: boolean;
  onDecide: (approved: boolean) => Promise<void>;
}

function headline({ kind, approve }: Wait): string {
  if (kind === "timer") return "I will come back to this";
  return approve ? "May I do this?" : "Waiting for an approval";
}

/** What the run waits for, with two buttons when the reader may decide. */
export function Approval({ wait, decided, onDecide }: Props) {
  const [working, setWorking] = useState(false);
  const [problem, setProblem] = useState("");

  const decide = async (approved: boolean) => {
    setWorking(true);
    setProblem("");
    try {
      await onDecide(approved);
    } catch (error) {
      setProblem((error as Error).message);
    }
    setWorking(false);
  };

  return (
    <section class="approval" aria-label={wait.kind === "timer" ? "Waiting" : "Approval"}>
      <h2>{headline(wait)}</h2>
      <p class="tool">{spaced(wait.tool)}</p>
      <dl>
        {Object.entries(wait.arguments).map(([name, value]) => (
          <div key={name}>
            <dt>{spaced(name)}</dt>
            <dd>{typeof value === "string" ? value : JSON.stringify(value)}</dd>
          </div>
        ))}
      </dl>
      {wait.until && !decided && <p class="until">Until {momentOf(wait.until)}</p>}
      {wait.approve && (
        <p class="verdicts">
          <button class="primary" disabled={working || decided} onClick={() => void decide(true)}>
            Approve
          </button>
          <button disabled={working || decided} onClick={() => void decide(false)}>
            Deny
          </button>
        </p>
      )}
      <p class="problem" role="alert">
        {problem}
      </p>
    </section>
  );
}
