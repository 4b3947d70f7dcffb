// A bittorrent-tracker on loopback, HTTP and UDP on one port number: node tracker.mjs HOST PORT
import Server from 'bittorrent-tracker/server'

const [host, port] = process.argv.slice(2)
const server = new Server({ http: true, udp: true, ws: false, stats: false })
server.on('error', error => { console.error(error.message); process.exit(1) })
server.on('warning', warning => console.error(warning.message))
server.listen(Number(port), { http: host, udp: '127.0.0.1', udp6: '::1' })
