package origin

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestOriginRemembersWhatReachedIt(t *testing.T) {
	s, err := Start("127.0.0.1", "::1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/a?b=c", s.Port))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "GET /a?b=c\n" {
		t.Errorf("body %q", body)
	}
	resp, err = http.Post(fmt.Sprintf("http://[::1]:%d/upload", s.Port), "text/plain", strings.NewReader("abc"))
	if err != nil {
		t.Fatal(err)
	}
	body, _ = io.ReadAll(resp.Body)
	resp.Body.Close()
	sum := sha256.Sum256([]byte("abc"))
	if got := strings.TrimSpace(string(body)); got != hex.EncodeToString(sum[:]) {
		t.Errorf("upload answered %q", got)
	}

	empty := sha256.Sum256(nil)
	want := []Request{
		{Method: "GET", Target: "/a?b=c", Proto: "HTTP/1.1", Host: fmt.Sprintf("127.0.0.1:%d", s.Port), SHA256: hex.EncodeToString(empty[:])},
		{Method: "POST", Target: "/upload", Proto: "HTTP/1.1", Host: fmt.Sprintf("[::1]:%d", s.Port), Length: 3, SHA256: hex.EncodeToString(sum[:])},
	}
	if diff := cmp.Diff(want, s.Requests(), cmpopts.IgnoreFields(Request{}, "Remote")); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestBytesDoNotDependOnHowTheyAreRead(t *testing.T) {
	whole, err := io.ReadAll(Bytes(1000))
	if err != nil || len(whole) != 1000 {
		t.Fatalf("%d bytes, %v", len(whole), err)
	}
	var pieces []byte
	r, buf := Bytes(1000), make([]byte, 7)
	for {
		n, err := r.Read(buf)
		pieces = append(pieces, buf[:n]...)
		if err != nil {
			break
		}
	}
	if diff := cmp.Diff(whole, pieces); diff != "" {
		t.Error(diff)
	}
}
