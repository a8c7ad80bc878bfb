/**
 * xterm.js under a policy that allows no inline styles.
 *
 * It adds style elements, which need the nonce, and it sets colours of 24 bits by the attribute `style`, which the
 * policy forbids; the same through the object model is allowed.
 */
import type { Terminal } from "@xterm/xterm";
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

/** The page's document, except that elements made through it keep to the policy. */
export function documentForTerminal(): Document {
  return new Proxy(document, {
    get(target, name) {
      if (name === "createElement") return createAllowed;
      const value: unknown = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** Open a terminal in an element. The scroll bar's styles are made with the page's own document meanwhile. */
export function openWithNonce(terminal: Terminal, parent: HTMLElement): void {
  document.createElement = createAllowed as typeof document.createElement;
  try {
    terminal.open(parent);
  } finally {
    // Uncovers the method of the prototype.
    Reflect.deleteProperty(document, "createElement");
  }
}
