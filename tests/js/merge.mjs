// What stock Yjs makes of updates: standard input [[update …] …] in hexadecimal, standard output
// {"text", "is_waiting"} of the root text "text" after each list.
import { readFileSync } from 'node:fs'
import * as Y from 'yjs'

const merged = updates => {
  const doc = new Y.Doc()
  updates.forEach(update => Y.applyUpdate(doc, Uint8Array.from(Buffer.from(update, 'hex'))))
  return {
    text: doc.getText('text').toString(),
    is_waiting: doc.store.pendingStructs !== null || doc.store.pendingDs !== null
  }
}

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, 'utf8')).map(merged)))
