import { request } from "./api";

/** What a page must know before anybody signs in: whom it writes to, and where the services are. */
export interface ClientConfig {
  tenant: string;
  connection: string;
  /** How changes arrive: by server-sent events, or by Firestore's listener. */
  live: "events" | "firestore";
  /** Origins of the services; empty for the page's own. */
  addresses: { ingest: string; api: string; run_agent: string; callbacks: string };
  firebase: FirebaseConfig | null;
}

export interface FirebaseConfig {
  apiKey: string;
  authDomain: string;
  projectId: string;
  appId: string;
  /** Address of an Auth emulator; empty on Google Cloud. */
  authEmulator: string;
  /** `host:port` of a Firestore emulator; empty on Google Cloud. */
  firestoreEmulator: string;
}

export const loadConfig = () => request<ClientConfig>("/v1/client-config");
