/**
 * xterm.js under a policy that allows no inline styles.
 *
 * It adds style elements, which need the nonce, and it sets colours of 24 bits by the attribute `style`, which the
 * policy forbids; the same through the object model is allowed. xterm.js has no setting for either, so elements that
 * are made after the first terminal was opened keep to the policy by themselves.
 */
import { styleNonce } from "../api/caller";

function createAllowed(tag: string, options?: ElementCreationOptions): HTMLElement {
  const element = Document.prototype.createElement.call(document, tag, options);
  if (tag === "style") element.nonce = styleNonce;
  if (tag === "span") {
    element.setAttribute = (name: string, value: string) => {
      if (name === "style") element.style.cssText = value;
      else Element.prototype.setAttribute.call(element, name, value);
    };
  }
  return element;
}

export function allowStyles(): void {
  document.createElement = createAllowed as typeof document.createElement;
}
