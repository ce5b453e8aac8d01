//go:build linux

package discover

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The versions of the engine's API that are spoken: Docker 19.03 is the oldest. All
// that is read here has had the same form since then.
const (
	oldestAPI = 40 // 1.40
	newestAPI = 51 // 1.51
)

// Limits on what is read from the engine, in bytes.
const (
	maxList    = 64 << 20
	maxInspect = 4 << 20
	maxEvent   = 1 << 20
	maxMessage = 4 << 10
)

const requestTimeout = 30 * time.Second

// errGone says that the engine knows no such container or image.
var errGone = errors.New("no such object")

// engine is a client of the Docker Engine API
// (https://docs.docker.com/reference/api/engine/) with the few calls needed here.
type engine struct {
	client http.Client
	socket string
	prefix string // "/v1.41"
}

// A container as GET /containers/json lists it. The engine answers from its books,
// also while the container is being started.
type listed struct {
	ID         string `json:"Id"`
	Names      []string
	Image      string
	ImageID    string
	State      string
	Labels     map[string]string
	HostConfig struct{ NetworkMode string }
}

// A container as GET /containers/ID/json shows it. The engine does not answer while it
// is starting or stopping the container.
type inspected struct {
	ID    string `json:"Id"`
	Name  string
	Image string // the image's id
	State struct {
		Running bool
		Pid     int
	}
	Config struct {
		Image  string // as its user wrote it
		Labels map[string]string
	}
	HostConfig hostConfig
}

type hostConfig struct {
	NetworkMode     string
	CgroupParent    string
	Privileged      bool
	CapAdd, CapDrop []string
}

// An event as GET /events sends it.
type event struct {
	Type   string
	Action string
	Actor  struct {
		ID         string
		Attributes map[string]string
	}
}

func newEngine(socket string) *engine {
	e := &engine{socket: socket}
	e.client.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
		MaxIdleConns:       4,
		IdleConnTimeout:    time.Minute,
	}
	return e
}

func (e *engine) close() { e.client.CloseIdleConnections() }

// negotiate asks the engine for its version and takes the newest that both speak.
func (e *engine) negotiate(ctx context.Context) error {
	e.prefix = ""
	resp, err := e.get(ctx, "/_ping", nil)
	if err != nil {
		return fmt.Errorf("reach docker: %w", err)
	}
	resp.Body.Close()
	major, minor, _ := strings.Cut(resp.Header.Get("Api-Version"), ".")
	n, err := strconv.Atoi(minor)
	if major != "1" || err != nil {
		return fmt.Errorf("reach docker: %s answers, but names no API version that is known here: %q", e.socket, resp.Header.Get("Api-Version"))
	}
	if n < oldestAPI {
		return fmt.Errorf("reach docker: its API is version 1.%d, the oldest spoken here is 1.%d: update docker to 19.03 or newer", n, oldestAPI)
	}
	e.prefix = fmt.Sprintf("/v1.%d", min(n, newestAPI))
	return nil
}

// get sends a request. The caller closes the body of an answer that is not an error.
func (e *engine) get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "docker", Path: e.prefix + path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, errGone
	}
	var body struct{ Message string }
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	if json.Unmarshal(text, &body) != nil || body.Message == "" {
		body.Message = http.StatusText(resp.StatusCode)
	}
	return nil, fmt.Errorf("GET %s: %d: %s", path, resp.StatusCode, body.Message)
}

func (e *engine) read(ctx context.Context, path string, query url.Values, limit int64, into any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := e.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := &io.LimitedReader{R: resp.Body, N: limit}
	if err := json.NewDecoder(body).Decode(into); err != nil {
		if body.N <= 0 {
			err = fmt.Errorf("the answer is longer than %d bytes", limit)
		}
		return fmt.Errorf("read answer to GET %s: %w", path, err)
	}
	return nil
}

// list returns every container, running or not, or those of one id.
func (e *engine) list(ctx context.Context, id string) ([]listed, error) {
	query := url.Values{"all": {"1"}}
	if id != "" {
		query.Set("filters", `{"id":["`+id+`"]}`)
	}
	var list []listed
	if err := e.read(ctx, "/containers/json", query, maxList, &list); err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return list, nil
}

func (e *engine) inspect(ctx context.Context, id string) (*inspected, error) {
	c := new(inspected)
	if err := e.read(ctx, "/containers/"+id+"/json", nil, maxInspect, c); err != nil {
		return nil, fmt.Errorf("inspect container: %w", err)
	}
	if c.ID != id {
		return nil, fmt.Errorf("inspect container: asked for %.12s, got %.12q", id, c.ID)
	}
	return c, nil
}

// imageLabels returns the labels that an image brings to its containers.
func (e *engine) imageLabels(ctx context.Context, image string) (map[string]string, error) {
	var i struct {
		Config struct{ Labels map[string]string }
	}
	if err := e.read(ctx, "/images/"+image+"/json", nil, maxInspect, &i); err != nil {
		return nil, fmt.Errorf("inspect image: %w", err)
	}
	return i.Config.Labels, nil
}

// What is asked for of the events; health checks alone make many others.
const eventFilter = `{"type":["container","network"],"event":["create","rename","start","die","destroy","connect"]}`

// follow calls got with each event from since on, until the stream or ctx ends. ready
// is called once the engine has answered. The error is never nil.
func (e *engine) follow(ctx context.Context, since time.Time, ready func(), got func(event)) error {
	resp, err := e.get(ctx, "/events", url.Values{
		"since":   {fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond())},
		"filters": {eventFilter},
	})
	if err != nil {
		return fmt.Errorf("follow events of docker: %w", err)
	}
	defer resp.Body.Close()
	ready()
	// One JSON object per event; a limit for each.
	r := &io.LimitedReader{R: bufio.NewReader(resp.Body)}
	dec := json.NewDecoder(r)
	for {
		r.N = maxEvent
		var ev event
		if err := dec.Decode(&ev); err != nil {
			switch {
			case r.N <= 0:
				err = fmt.Errorf("an event longer than %d bytes", maxEvent)
			case errors.Is(err, io.EOF):
				err = errors.New("docker closed the connection")
			}
			return fmt.Errorf("follow events of docker: %w", err)
		}
		got(ev)
	}
}

// isID reports whether s is a container's id: it becomes part of paths.
func isID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// isImageID is the same of an image, sha256:HEX.
func isImageID(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && isID(hex)
}
