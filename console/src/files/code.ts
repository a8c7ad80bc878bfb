/** CodeMirror with the languages that projects are mostly written in. */
import { css } from "@codemirror/lang-css";
import { html } from "@codemirror/lang-html";
import { javascript } from "@codemirror/lang-javascript";
import { json } from "@codemirror/lang-json";
import { python } from "@codemirror/lang-python";
import type { Extension } from "@codemirror/state";
import { oneDark } from "@codemirror/theme-one-dark";
import { keymap } from "@codemirror/view";
import { basicSetup, EditorView } from "codemirror";
import { styleNonce } from "../api/caller";

export interface CodeView {
  /** Replace the whole text, unless it is this text already. */
  replace: (text: string) => void;
  close: () => void;
}

interface Options {
  path: string;
  /** The line to show first, from 1. */
  line: number;
  text: string;
  isDark: boolean;
  onChange: (text: string) => void;
  onSave: (text: string) => void;
}

const LANGUAGES: [RegExp, () => Extension][] = [
  [/\.[cm]?[jt]sx?$/, () => javascript({ jsx: true, typescript: true })],
  [/\.py$/, python],
  [/\.(html?|vue|svelte)$/, html],
  [/\.(css|scss|less)$/, css],
  [/\.json$/, json],
];

export function openCode(
  parent: HTMLElement,
  { path, line, text, isDark, onChange, onSave }: Options,
): CodeView {
  const language = LANGUAGES.find(([pattern]) => pattern.test(path))?.[1]();
  function save(view: EditorView): boolean {
    onSave(view.state.doc.toString());
    return true;
  }
  const view = new EditorView({
    parent,
    doc: text,
    extensions: [
      basicSetup,
      keymap.of([{ key: "Mod-s", run: save, preventDefault: true }]),
      EditorView.cspNonce.of(styleNonce),
      EditorView.contentAttributes.of({ "aria-label": path }),
      EditorView.updateListener.of((update) => {
        if (update.docChanged) onChange(update.state.doc.toString());
      }),
      ...(language ? [language] : []),
      ...(isDark ? [oneDark] : []),
    ],
  });
  if (line > 1) {
    const place = view.state.doc.line(Math.min(line, view.state.doc.lines)).from;
    view.dispatch({
      selection: { anchor: place },
      effects: EditorView.scrollIntoView(place, { y: "center" }),
    });
    view.focus();
  }
  return {
    replace: (next) => {
      const length = view.state.doc.length;
      if (view.state.doc.toString() !== next)
        view.dispatch({ changes: { from: 0, to: length, insert: next } });
    },
    close: () => view.destroy(),
  };
}
