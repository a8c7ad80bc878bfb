/** A random name, of 32 hex digits. Not `randomUUID`, which a browser has only on https and localhost. */
export function newKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}
