import { useState } from "preact/hooks";
import type { Auth } from "./auth";
import { Mark } from "./notice";

/** Sign in with an e-mail address, make an account, or go on as a guest. `onDone` is called once somebody is signed in. */
export function SignIn({ auth, onDone }: { auth: Auth; onDone: () => void }) {
  const [working, setWorking] = useState(false);
  const [problem, setProblem] = useState("");

  const attempt = async (way: () => Promise<void>) => {
    setWorking(true);
    setProblem("");
    try {
      await way();
      onDone();
    } catch (error) {
      setProblem((error as Error).message);
      setWorking(false);
    }
  };
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const fields = new FormData(event.currentTarget as HTMLFormElement);
    const way = (event.submitter as HTMLButtonElement | null)?.value === "new" ? auth.signUp : auth.signIn;
    void attempt(() => way(String(fields.get("email")), String(fields.get("password"))));
  };

  return (
    <main class="signin">
      <Mark />
      <h1>Sign in to write</h1>
      <form onSubmit={submit}>
        <label>
          E-mail
          <input name="email" type="email" autocomplete="username" required />
        </label>
        <label>
          Password
          <input name="password" type="password" autocomplete="current-password" minLength={6} required />
        </label>
        <p class="problem" role="alert">
          {problem}
        </p>
        <button class="primary" disabled={working}>
          Sign in
        </button>
        <button value="new" disabled={working}>
          Create an account
        </button>
      </form>
      <p class="or">or</p>
      <button disabled={working} onClick={() => void attempt(auth.asGuest)}>
        Continue as a guest
      </button>
    </main>
  );
}
