// Node's fetch (undici), which keeps its connections.
const base = 'http://' + process.argv[2]

async function ask(step, method, path, body) {
  const more = body ? { body, duplex: 'half' } : {}
  const r = await fetch(base + path, { method, ...more })
  console.log(step, r.status, (await r.text()).trim())
}

async function* pieces() {
  yield Buffer.from('hel')
  yield Buffer.from('lo')
}

await ask('get', 'GET', '/public')
await ask('denied', 'GET', '/denied')
await ask('post', 'POST', '/upload', 'hello')
await ask('chunked', 'POST', '/upload', pieces())
await ask('head', 'HEAD', '/public')
await ask('again', 'GET', '/public?again')
