// @vitest-environment happy-dom
import { render } from "preact";
import { act } from "preact/test-utils";
import { expect, test } from "vitest";
import { useFollowing } from "../src/following";

let toLatest = () => {};

function Box() {
  const following = useFollowing(0);
  toLatest = following.toLatest;
  return <main ref={following.scroller as never} />;
}

test("what was asked to show the end may be gone by then: the contact signed out", () => {
  act(() => render(<Box />, document.body));
  act(() => render(null, document.body));
  expect(document.querySelector("main")).toBeNull();
  expect(toLatest).not.toThrow();
});
