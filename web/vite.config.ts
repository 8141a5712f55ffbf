import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** The built page runs only its own scripts and styles. The one foreign image is what Firestore's SDK probes the network
 * with when its stream broke. Not for `vite` itself, which injects styles. */
const contentSecurityPolicy: Plugin = {
  name: "content-security-policy",
  apply: "build",
  transformIndexHtml: () => [
    {
      tag: "meta",
      injectTo: "head-prepend",
      attrs: {
        "http-equiv": "Content-Security-Policy",
        content:
          "default-src 'none'; script-src 'self'; style-src 'self'; " +
          "img-src 'self' https://www.google.com/images/cleardot.gif; " +
          "connect-src 'self' https: http://127.0.0.1:* http://localhost:*; base-uri 'none'; form-action 'self'",
      },
    },
  ],
};

export default defineConfig({
  plugins: [contentSecurityPolicy],
  build: { target: "es2023", chunkSizeWarningLimit: 700, modulePreload: { polyfill: false } },
  server: { proxy: { "/v1": "http://127.0.0.1:8080" } },
  test: { include: ["tests/**/*.test.{ts,tsx}"] },
});
