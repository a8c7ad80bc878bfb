/** Addresses of previews. */

const SIGNATURE = "_sbx";

/** A link as http or https, or null. A preview must never be a `javascript:` or `data:` URL. */
export function safeUrl(text: string | null): URL | null {
  if (!text) return null;
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url : null;
  } catch {
    return null;
  }
}

/** The signed link to a path of a port of a session, from the signed link to its preview. */
export function previewAddress(signed: URL, path: string, port: number | null): string {
  const url = new URL(signed);
  // A path that starts with two slashes would be another host.
  const inside = new URL(`http://preview/${path.replace(/^\/+/, "")}`);
  url.pathname = inside.pathname;
  url.search = inside.search;
  url.hash = inside.hash;
  if (port !== null) url.host = `${port}-${signed.host}`;
  const signature = signed.searchParams.get(SIGNATURE);
  if (signature !== null) url.searchParams.set(SIGNATURE, signature);
  return url.href;
}
