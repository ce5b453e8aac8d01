package httpproxy

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Nobody hangs, whatever comes together with the end of a side: the proxy waits without
// looking first, so what it is not told of it would never see.
func TestNoWakeupIsLost(t *testing.T) {
	connections := 3000
	if testing.Short() {
		connections = 300
	}
	b := newBench(t, judge)
	go func() {
		for {
			up, err := b.origin.Accept()
			if err != nil {
				return
			}
			go rudeOrigin(up.(*net.TCPConn))
		}
	}()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 32)
	for i := range connections {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wg.Done() }()
			hastyClient(t, b, rand.New(rand.NewPCG(1, uint64(i))))
		}()
	}
	wg.Wait()
}

// The ways of the origin: what it does with a request is in the request's path.
const (
	answers      = "/public?answers"
	inPieces     = "/public?pieces"
	answersEnds  = "/public?ends"       // and closes its side
	closesAfter  = "/public?closes"     // and closes
	neverAnswers = "/public?never"      // but closes its side
	surplus      = "/public?surplus"    // two answers at once
	saysItCloses = "/public?says-close" // as HTTP has it
)

var ways = []string{answers, answers, answers, inPieces, inPieces, answersEnds, closesAfter, neverAnswers, surplus, saysItCloses}

func rudeOrigin(up *net.TCPConn) {
	defer up.Close()
	r := bufio.NewReader(up)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		switch req.URL.RequestURI() {
		case inPieces:
			for i := range okay {
				io.WriteString(up, okay[i:i+1])
			}
		case answersEnds:
			io.WriteString(up, okay)
			up.CloseWrite()
			io.Copy(io.Discard, up)
			return
		case closesAfter:
			io.WriteString(up, okay)
			return
		case neverAnswers:
			up.CloseWrite()
			io.Copy(io.Discard, up)
			return
		case surplus:
			io.WriteString(up, okay+okay)
		case saysItCloses:
			io.WriteString(up, strings.Replace(okay, "\r\n", "\r\nConnection: close\r\n", 1))
			return
		default:
			io.WriteString(up, okay)
		}
	}
}

// hastyClient sends a few requests, cut and joined at random, some before the answer to
// the last, and its FIN with the last one or after everything.
func hastyClient(t *testing.T, b *bench, r *rand.Rand) {
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	client := c.(*net.TCPConn)
	client.SetDeadline(time.Now().Add(patience))
	var did []string
	sure := 0 // answers that must come: those before the origin does anything rude
	rude := false
	in := bufio.NewReader(client)
	got := 0
	read := func() bool {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Errorf("no answer and no end after %q", did)
			}
			return false
		}
		_, err = io.Copy(io.Discard, resp.Body)
		got++
		return err == nil
	}
	n := 1 + r.IntN(4)
	last := false
	for i := range n {
		way := ways[r.IntN(len(ways))]
		did = append(did, way)
		if way != answers && way != inPieces {
			rude = true
		}
		if !rude {
			sure++
		}
		req := strings.Replace(get, "/public", way, 1)
		if r.IntN(4) == 0 {
			cut := 1 + r.IntN(len(req)-1)
			io.WriteString(client, req[:cut])
			req = req[cut:]
		}
		io.WriteString(client, req)
		if i == n-1 && r.IntN(2) == 0 {
			client.CloseWrite()
			did = append(did, "FIN")
			last = true
		}
		if r.IntN(2) == 0 && !read() {
			break
		}
	}
	if !last && !rude {
		for got < sure && read() {
		}
		client.CloseWrite()
		did = append(did, "FIN at last")
	}
	for read() {
	}
	if !rude && got != sure {
		t.Errorf("%d answers after %q", got, did)
	}
}
