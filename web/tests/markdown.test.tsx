// @vitest-environment happy-dom
import { render } from "preact";
import { expect, test } from "vitest";
import { markdown } from "../src/markdown";

function html(text: string): string {
  const place = document.createElement("div");
  render(markdown(text), place);
  return place.innerHTML;
}

test("emphasis, lists, code and tables are shown as such", () => {
  expect(html("**bold** _and_ `code`")).toBe("<p><strong>bold</strong> <em>and</em> <code>code</code></p>");
  expect(html("2. two\n3. three")).toBe('<ol start="2"><li>two</li><li>three</li></ol>');
  expect(html("| a |\n| - |\n| 1 |")).toContain('<th scope="col">a</th>');
  expect(html("one\ntwo")).toBe("<p>one<br>two</p>");
});

test("HTML stays text", () => {
  for (const text of ["<script>alert(1)</script>", "a <img src=x onerror=alert(1)> b", "<b>bold</b>"]) {
    const place = document.createElement("div");
    render(markdown(text), place);
    expect(place.querySelector("script, img, b")).toBeNull();
    expect(place.textContent).toBe(text);
  }
});

test("only addresses of the web, mail and telephones become links", () => {
  expect(html("[x](https://example.org)")).toContain('href="https://example.org"');
  for (const address of ["javascript:alert(1)", "data:text/html,x", " JaVaScRiPt:alert(1)", "//example.org", "/v1/x"])
    expect(html(`[x](<${address}>)`)).toBe("<p>x</p>");
});

test("an image is not loaded: it becomes a link", () => {
  const shown = html("![cat](https://example.org/cat.png)");
  expect(shown).not.toContain("<img");
  expect(shown).toContain(">cat</a>");
});

test("text that is cut anywhere can be shown", () => {
  const whole = "# T\n\n**a [b](https://e.org) c**\n\n| a |\n| - |\n| 1 |\n\n```js\nx\n```\n- l";
  for (let end = 0; end <= whole.length; end++) expect(html(whole.slice(0, end))).not.toContain("undefined");
});
