// webtorrent as a leecher or a seeder, for the benchmarks.
//
// usage: webtorrent_peer.mjs PACKAGE_DIRECTORY leech|seed TORRENT DIRECTORY PORT
//
// A leecher exits when everything is verified and written; a seeder serves until it is killed. WebRTC is left out: its
// native library is not there when packages are installed without their scripts, and no peer here speaks it.
import { register } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const nothing = 'data:text/javascript,' + encodeURIComponent(
  'export const RTCPeerConnection = undefined, RTCSessionDescription = undefined, RTCIceCandidate = undefined')
const hook = `export function resolve (name, context, next) {
  return name === 'webrtc-polyfill' ? { url: ${JSON.stringify(nothing)}, shortCircuit: true } : next(name, context)
}`
register('data:text/javascript,' + encodeURIComponent(hook))

const [home, side, torrent, directory, port] = process.argv.slice(2)
const { default: WebTorrent } = await import(pathToFileURL(join(home, 'index.js')).href)

const client = new WebTorrent({
  dht: false, lsd: false, utPex: false, utp: false, natUpnp: false, natPmp: false, webSeeds: false, secure: false,
  torrentPort: Number(port)
})

function fail (error) {
  console.error(error)
  process.exit(1)
}

client.on('error', fail)
client.add(torrent, { path: directory }, handle => {
  handle.on('error', fail)
  if (side === 'leech') handle.on('done', () => handle.store.close(() => process.exit(0)))
})
