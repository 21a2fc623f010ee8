// Reads positions that Python made and makes positions that Python reads.
//
// stdin:  {update: hex, positions: [hex], indexes: [[UTF-16 index, association]]}
// stdout: {text, indexes: [UTF-16 index of each position], positions: [hex of each index]}
import { readFileSync } from 'node:fs'
import * as Y from 'yjs'

const asked = JSON.parse(readFileSync(0, 'utf8'))
const bytes = hex => Uint8Array.from(Buffer.from(hex, 'hex'))
const doc = new Y.Doc()
Y.applyUpdate(doc, bytes(asked.update))
const text = doc.getText('text')

const indexes = asked.positions.map(encoded => {
  const relative = Y.decodeRelativePosition(bytes(encoded))
  return Y.createAbsolutePositionFromRelativePosition(relative, doc).index
})
const positions = asked.indexes.map(([index, association]) => {
  const relative = Y.createRelativePositionFromTypeIndex(text, index, association)
  return Buffer.from(Y.encodeRelativePosition(relative)).toString('hex')
})
console.log(JSON.stringify({ text: text.toString(), indexes, positions }))
