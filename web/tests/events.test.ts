import { expect, test } from "vitest";
import { parse } from "../src/events";

async function parsed(...chunks: string[]): Promise<unknown[]> {
  const found = [];
  for await (const event of parse((async function* () { yield* chunks; })())) found.push(event);
  return found;
}

const STREAM = ': hello\n\nid: 1\nevent: message\ndata: {"text":\ndata: "é"}\n\nevent:text.delta\ndata:{"offset":0}\n\n';
const EVENTS = [
  { id: "1", event: "message", data: { text: "é" } },
  { id: "", event: "text.delta", data: { offset: 0 } },
];

test("events are read, comments are not", async () => {
  expect(await parsed(STREAM)).toEqual(EVENTS);
});

test("it does not matter where the stream is cut, nor how its lines end", async () => {
  for (const stream of [STREAM, STREAM.replaceAll("\n", "\r\n"), STREAM.replaceAll("\n", "\r") + ":"])
    expect(await parsed(...stream)).toEqual(EVENTS);
});

test("an event that was cut off before its end is none", async () => {
  expect(await parsed('id: 1\ndata: {"text": "a"}\n')).toEqual([]);
});
