import { useEffect } from "react";

/** Set the title of the page. */
export function usePageTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · purple8-sandbox`;
  }, [title]);
}
