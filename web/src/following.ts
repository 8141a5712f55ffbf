import type { RefObject } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

const NEAR_PX = 80;

/** Keeps the end of a scrolled element in sight while `content` grows, until the reader scrolls away from it. */
export function useFollowing(content: unknown): {
  scroller: RefObject<HTMLElement | null>;
  following: boolean;
  toLatest: () => void;
} {
  const scroller = useRef<HTMLElement>(null);
  const end = useRef(true);
  const [following, setFollowing] = useState(true);
  const toLatest = () => {
    const element = scroller.current;
    if (!element) return; // what changes the content may take the element away as well: signing out
    end.current = true;
    setFollowing(true);
    element.scrollTop = element.scrollHeight;
  };

  useEffect(() => {
    const element = scroller.current!;
    const moved = () => {
      end.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_PX;
      setFollowing(end.current);
    };
    const resized = new ResizeObserver(() => end.current && toLatest()); // a phone's keyboard, or a longer draft
    element.addEventListener("scroll", moved, { passive: true });
    resized.observe(element);
    return () => {
      element.removeEventListener("scroll", moved);
      resized.disconnect();
    };
  }, []);
  useLayoutEffect(() => {
    if (end.current) toLatest();
  }, [content]);

  return { scroller, following, toLatest };
}
