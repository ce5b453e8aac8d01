# Python's http.client: every step on one connection.
import http.client, sys

host = sys.argv[1]
c = http.client.HTTPConnection(host, timeout=30)


def ask(step, method, path, **more):
    c.request(method, path, **more)
    r = c.getresponse()
    print(step, r.status, r.read().decode().strip())


ask("get", "GET", "/public")
ask("denied", "GET", "/denied")
ask("post", "POST", "/upload", body=b"hello")
ask("chunked", "POST", "/upload", body=iter([b"hel", b"lo"]), encode_chunked=True,
    headers={"Transfer-Encoding": "chunked"})
ask("head", "HEAD", "/public")
ask("again", "GET", "/public?again")
