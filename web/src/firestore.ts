/** The contact's view document, followed by Firestore's listener. Loaded only where Firebase is configured. */

import { getApp } from "firebase/app";
import {
  type Bytes,
  connectFirestoreEmulator,
  doc,
  type DocumentSnapshot,
  type FirestoreError,
  getFirestore,
  onSnapshot,
} from "firebase/firestore";
import { Refused } from "./api";
import type { FirebaseConfig } from "./config";
import type { Source } from "./events";
import { Pause } from "./pause";
import type { Action, View } from "./state";

/** Dispatches the document at `path` whenever it changes; `onRefused` is told when the rules do not let the reader in. */
export function followView(
  { firestoreEmulator }: FirebaseConfig,
  path: string,
  dispatch: (action: Action) => void,
  onRefused: (refused: Refused) => void,
): Source {
  const firestore = getFirestore(getApp());
  if (firestoreEmulator) {
    const { hostname, port } = new URL(`http://${firestoreEmulator}`);
    connectFirestoreEmulator(firestore, hostname, Number(port));
  }
  const pause = new Pause();
  const closed = new AbortController();
  let stop = () => {};

  const listen = () => {
    stop();
    stop = onSnapshot(
      doc(firestore, path),
      { includeMetadataChanges: true }, // whether it is still connected is told only there
      (snapshot) => {
        pause.reset();
        dispatch({ type: "view", view: viewIn(snapshot) });
        dispatch({ type: "link", link: snapshot.metadata.fromCache ? "offline" : "live" });
      },
      (error) => void failed(error),
    );
  };
  const failed = async (error: FirestoreError) => {
    if (error.code === "permission-denied") return onRefused(new Refused(403, "This conversation is not yours to read."));
    dispatch({ type: "link", link: "offline" });
    await pause.wait();
    if (!closed.signal.aborted) listen();
  };

  addEventListener("offline", () => dispatch({ type: "link", link: "offline" }), { signal: closed.signal });
  addEventListener("online", listen, { signal: closed.signal }); // the SDK by itself may be silent about its return
  listen();
  return {
    nudge: () => {},
    close: () => {
      closed.abort();
      stop();
    },
  };
}

/** The view is kept as bytes of JSON, like everything that the services write. */
function viewIn(snapshot: DocumentSnapshot): View | null {
  if (!snapshot.exists()) return null;
  return JSON.parse(new TextDecoder().decode((snapshot.get("body") as Bytes).toUint8Array())) as View;
}
