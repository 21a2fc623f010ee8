// Writes the documents of a y-websocket server (its folder YPERSISTENCE) as lines of JSON:
//
//     npm install y-leveldb yjs
//     node dump_leveldb.mjs ./yjs-data > documents.ndjson
//     crdt-state import documents.ndjson
//
// Stop the server first: a LevelDB folder belongs to one process at a time.

import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { LeveldbPersistence } from 'y-leveldb'
import * as Y from 'yjs'

const folder = process.argv[2]
if (folder === undefined || !existsSync(folder)) {
  console.error('usage: node dump_leveldb.mjs FOLDER > documents.ndjson')
  process.exit(2)
}
const documents = new LeveldbPersistence(folder)
const names = await documents.getAllDocNames()
for (const name of names) {
  const document = await documents.getYDoc(name)
  const update = Buffer.from(Y.encodeStateAsUpdate(document)).toString('base64')
  document.destroy()
  if (!process.stdout.write(JSON.stringify({ name, update }) + '\n')) await once(process.stdout, 'drain')
}
console.error(`${names.length} documents`)
await documents.destroy()
