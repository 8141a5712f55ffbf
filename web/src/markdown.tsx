/** A safe subset of Markdown: marked only reads it; what is shown is built here, element by element, never as HTML. */

import { lexer, type MarkedToken, type Token, type Tokens } from "marked";
import type { ComponentChildren, VNode } from "preact";

const SAFE_LINK = /^(https?:|mailto:|tel:)/i;

/** The text as elements. Raw HTML in it stays text, an image becomes a link to it, and odd links lose their address. */
export const markdown = (text: string): VNode => <>{blocks(lexer(text, { gfm: true, breaks: true }))}</>;

const blocks = (tokens: readonly Token[]): ComponentChildren => tokens.map((token) => element(token as MarkedToken));

function inside(token: { tokens?: Token[] | undefined; text: string }): ComponentChildren {
  return token.tokens ? blocks(token.tokens) : token.text;
}

function element(token: MarkedToken): ComponentChildren {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "paragraph":
      return <p>{inside(token)}</p>;
    case "heading":
      return <p class="heading">{inside(token)}</p>;
    case "blockquote":
      return <blockquote>{inside(token)}</blockquote>;
    case "code":
      return (
        <pre tabIndex={0}>
          <code>{token.text}</code>
        </pre>
      );
    case "list":
      return list(token);
    case "table":
      return table(token);
    case "hr":
      return <hr />;
    case "strong":
      return <strong>{inside(token)}</strong>;
    case "em":
      return <em>{inside(token)}</em>;
    case "del":
      return <del>{inside(token)}</del>;
    case "codespan":
      return <code>{token.text}</code>;
    case "br":
      return <br />;
    case "link":
      return link(token.href, inside(token));
    case "image":
      return link(token.href, token.text || token.href);
    case "text":
      return inside(token);
    case "html":
      return token.block ? <p>{token.text}</p> : token.text;
    default:
      return token.raw;
  }
}

function link(href: string, children: ComponentChildren): ComponentChildren {
  if (!SAFE_LINK.test(href)) return children;
  return (
    <a href={href} target="_blank" rel="noopener noreferrer nofollow">
      {children}
    </a>
  );
}

function list({ ordered, start, items }: Tokens.List): VNode {
  const entries = items.map((item) => (
    <li>
      {item.task && (item.checked ? "☑ " : "☐ ")}
      {inside(item)}
    </li>
  ));
  return ordered ? <ol start={Number(start)}>{entries}</ol> : <ul>{entries}</ul>;
}

function table({ header, rows }: Tokens.Table): VNode {
  return (
    <div class="table" tabIndex={0}>
      <table>
        <thead>
          <tr>{header.map((cell) => <th scope="col">{inside(cell)}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map((row) => <tr>{row.map((cell) => <td>{inside(cell)}</td>)}</tr>)}
        </tbody>
      </table>
    </div>
  );
}
