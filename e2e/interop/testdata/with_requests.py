# Python's requests, with a session that keeps its connection.
import sys
import requests

base = "http://" + sys.argv[1]
s = requests.Session()


def ask(step, method, path, **more):
    r = s.request(method, base + path, timeout=30, **more)
    print(step, r.status_code, r.text.strip())


ask("get", "GET", "/public")
ask("denied", "GET", "/denied")
ask("post", "POST", "/upload", data=b"hello")
ask("chunked", "POST", "/upload", data=iter([b"hel", b"lo"]))
ask("head", "HEAD", "/public")
ask("again", "GET", "/public?again")
