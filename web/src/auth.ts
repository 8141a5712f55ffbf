/** Sign-in with Firebase Auth. Loaded only where Firebase is configured. */

import { FirebaseError, initializeApp } from "firebase/app";
import {
  browserLocalPersistence,
  connectAuthEmulator,
  createUserWithEmailAndPassword,
  indexedDBLocalPersistence,
  initializeAuth,
  signInAnonymously,
  signInWithEmailAndPassword,
  signOut,
} from "firebase/auth";
import type { FirebaseConfig } from "./config";
import type { Contact } from "./conversation";

/** Ways to sign in; each throws an `Error` whose message a person can read. */
export interface Auth {
  /** Who is signed in from an earlier visit. */
  contact(): Promise<Contact | null>;
  asGuest(): Promise<void>;
  signIn(email: string, password: string): Promise<void>;
  signUp(email: string, password: string): Promise<void>;
}

export function startAuth(config: FirebaseConfig): Auth {
  const { apiKey, authDomain, projectId, appId, authEmulator } = config;
  const app = initializeApp({ apiKey, authDomain, projectId, appId });
  // without a popup's resolver: the page opens none, and no frame of another origin is loaded
  const auth = initializeAuth(app, { persistence: [indexedDBLocalPersistence, browserLocalPersistence] });
  if (authEmulator) connectAuthEmulator(auth, authEmulator, { disableWarnings: true });

  return {
    async contact() {
      await auth.authStateReady();
      const user = auth.currentUser;
      return (
        user && {
          name: user.email ?? "Guest",
          credentials: async () => ({ Authorization: `Bearer ${await user.getIdToken()}` }),
          signOut: () => signOut(auth),
        }
      );
    },
    asGuest: () => readable(signInAnonymously(auth)),
    signIn: (email, password) => readable(signInWithEmailAndPassword(auth, email, password)),
    signUp: (email, password) => readable(createUserWithEmailAndPassword(auth, email, password)),
  };
}

const REASONS: Record<string, string> = {
  "auth/admin-restricted-operation": "Guests are not admitted here. Sign in with an e-mail address.",
  "auth/email-already-in-use": "There is an account with this e-mail address. Sign in instead.",
  "auth/invalid-credential": "E-mail address and password do not match.",
  "auth/invalid-email": "This is not an e-mail address.",
  "auth/network-request-failed": "The network did not answer. Try again.",
  "auth/operation-not-allowed": "This way of signing in is not enabled here.",
  "auth/too-many-requests": "Too many tries. Wait a minute, then try again.",
  "auth/user-disabled": "This account is disabled.",
  "auth/weak-password": "The password is too short: use at least 6 characters.",
};

async function readable(attempt: Promise<unknown>): Promise<void> {
  try {
    await attempt;
  } catch (error) {
    const code = error instanceof FirebaseError ? error.code : "";
    throw new Error(REASONS[code] ?? `Signing in did not work (${code || "unknown reason"}).`, { cause: error });
  }
}
