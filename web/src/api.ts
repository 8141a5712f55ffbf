/** HTTP as the services speak it: JSON in and out, errors as problem+json (RFC 9457). */

const PATIENCE_MS = 15_000;

/** The service refused: `status` as in HTTP, `message` says what is wrong and how to put it right. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail);
  }
}

/** Nothing answered, or not now: the same request may be sent again. */
export class Unreachable extends Error {}

/** Who is asking: headers for a request. On a development machine a cookie says it, and there are none. */
export type Credentials = () => Promise<Record<string, string>>;

/** The answer's JSON. Throws `Refused` and `Unreachable`. */
export async function request<Answer>(url: string, body?: unknown, credentials?: Credentials): Promise<Answer> {
  const init: RequestInit = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const headers = { ...(await credentials?.()), ...(body !== undefined && { "Content-Type": "application/json" }) };
  const response = await reach(url, { ...init, headers, signal: AbortSignal.timeout(PATIENCE_MS) });
  return (await response.json()) as Answer;
}

/** A response with a status of success. Throws as `request` does. */
export async function reach(url: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    throw new Unreachable("The network did not answer.", { cause: error });
  }
  if (response.ok) return response;
  if (response.status >= 500 || response.status === 429) throw new Unreachable(`The service answered ${response.status}.`);
  throw new Refused(response.status, await detail(response));
}

async function detail(response: Response): Promise<string> {
  try {
    const problem = (await response.json()) as { detail?: string; title?: string };
    return problem.detail ?? problem.title ?? response.statusText;
  } catch {
    return response.statusText || `The service answered ${response.status}.`;
  }
}
