import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "/console/",
  plugins: [react()],
  build: {
    outDir: "../sandbox/console/built",
    emptyOutDir: true,
    manifest: "manifest.json",
    // The policy of the page forbids images and fonts from data URLs in styles as well as inline scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    // The editor with its languages is larger than the default; it is loaded when a file is opened.
    chunkSizeWarningLimit: 700,
    // These have light-dark(); for older ones it would be rewritten into variables that Mantine does not set.
    cssTarget: ["chrome123", "edge123", "firefox120", "safari17.5"],
  },
  test: { environment: "happy-dom", isolate: false, include: ["src/**/*.test.{ts,tsx}"] },
});
