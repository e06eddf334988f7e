import { wordsOf } from "./words.js";

/** The whole interface: a function of the inputs and the config, which answers the outputs (or a promise of them). */
export default function slug({ text }, { separator, max_words }) {
  const words = wordsOf(text).slice(0, max_words);
  if (words.length === 0) throw new Error("the text has no words");
  return { slug: words.join(separator), words: words.length };
}
