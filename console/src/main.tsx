import "@mantine/core/styles.css";
import "./ui/console.css";
import { createTheme, MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { setNonce } from "get-nonce";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { styleNonce } from "./api/caller";
import { Problem } from "./api/client";
import { App } from "./app";

// Dialogs lock the scrolling of the page with a style element of their own, which needs the nonce too.
setNonce(styleNonce);

const theme = createTheme({
  primaryColor: "violet",
  primaryShade: { light: 8, dark: 7 },
  fontFamilyMonospace: "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace",
  cursorType: "pointer",
});

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      // A problem that the service answered stays the same; a service that does not answer is asked again.
      retry: (count, error) => !(error instanceof Problem && error.status < 500) && count < 100,
      retryDelay: 1500,
      staleTime: 2000,
    },
  },
});

const root = document.getElementById("root");
if (!root) throw new Error("the page has no element #root");
createRoot(root).render(
  <StrictMode>
    <MantineProvider theme={theme} defaultColorScheme="auto" getStyleNonce={() => styleNonce}>
      <QueryClientProvider client={queries}>
        <App />
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
