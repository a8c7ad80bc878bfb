/** What the service wrote into the page: who is signed in, and the nonce that styles need. */
function meta(name: string): HTMLMetaElement | null {
  return document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`);
}

export const caller = {
  userId: meta("caller")?.content ?? "",
  isAdmin: meta("caller")?.dataset.role === "admin",
};

export const styleNonce = meta("style-nonce")?.content ?? "";
