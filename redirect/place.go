//go:build linux

package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/weir-proxy/weir/bpf"
	"golang.org/x/sys/unix"
)

// place is the proxy's presence in one network namespace: its listening socket
// and the program that steers redirected connections to it. Endpoints of one
// namespace share it.
type place struct {
	d      *Datapath
	ns     namespace
	refs   int // under Datapath.mu
	ln     *net.TCPListener
	steer  *ebpf.Program
	link   link.Link
	judges bool            // steer judges what arrives; under Datapath.mu
	addrs  *addrWatch      // of the namespace
	first  []tcpSocket     // who listened when we came
	seeds  map[uint64]bool // cookies of listening sockets that were there before us; under Datapath.mu
	before []netip.Prefix  // addresses of the namespace at the last look; under addrs.mu
	shrunk atomic.Bool     // addresses have left the namespace; see lost.go
	lost   map[uint64]bool
	low    map[bpf.WeirLportKey]time.Time // entries that count too few, since when; under Datapath.mu
	ctx    context.Context
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

// openPlace returns the place of a namespace, opening it for its first endpoint.
// The caller holds d.mu.
func (d *Datapath) openPlace(path string) (*place, error) {
	inode, err := inodeOf(path)
	if err != nil {
		return nil, err
	}
	for _, p := range d.places { // which keep their namespaces, and so the numbers, alive
		if p.ns.inode == inode {
			p.refs++
			return p, nil
		}
	}
	p := d.prepared[inode]
	delete(d.prepared, inode)
	if p == nil {
		if p, err = d.makePlace(path, inode); err != nil {
			return nil, err
		}
	}
	if err := p.addrs.follow(p); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.refs = 1
	p.wg.Add(1)
	go p.accept()
	d.places[p.ns.cookie] = p
	return p, nil
}

// makePlace makes a place that nobody is at yet. It needs no lock.
func (d *Datapath) makePlace(path string, inode uint64) (*place, error) {
	p := &place{d: d, ns: namespace{path: path, inode: inode}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	for _, step := range []func() error{
		func() error { return p.ns.do(p.enterFirst) },
		p.publish,
		p.attach,
	} {
		if err := step(); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

// Prepare does what takes time for endpoints that are about to be added, on all
// processors: their namespaces by path. What goes wrong AddEndpoint will meet again.
// Discard takes back what was prepared and not used.
func (d *Datapath) Prepare(paths []string) {
	var wg sync.WaitGroup
	work := make(chan string)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for path := range work {
				d.prepare(path)
			}
		})
	}
	for _, path := range paths {
		work <- path
	}
	close(work)
	wg.Wait()
}

func (d *Datapath) prepare(path string) {
	inode, err := inodeOf(path)
	if err != nil {
		return
	}
	d.mu.Lock()
	for _, p := range d.places {
		if p.ns.inode == inode {
			d.mu.Unlock()
			return
		}
	}
	d.mu.Unlock()
	p, err := d.makePlace(path, inode)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.prepared[inode] != nil { // two paths of one namespace
		p.close()
		return
	}
	d.prepared[inode] = p
}

// Discard takes back what Prepare made for nobody.
func (d *Datapath) Discard() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for inode, p := range d.prepared {
		p.close()
		delete(d.prepared, inode)
	}
}

// enterFirst does on one visit what is to be done inside.
func (p *place) enterFirst() (err error) {
	if p.ns.cookie, err = netnsCookie(); err != nil {
		return err
	}
	if err := p.listen(); err != nil {
		return fmt.Errorf("open listener: %w", err)
	}
	if p.addrs, err = watchAddrs(p.ns, p.d.cfg.Log); err != nil {
		return err
	}
	if p.d.cfg.Ingress {
		// From here on the programs see who begins to listen; then who did before.
		if err := p.d.objs.Places.Put(p.ns.cookie, uint32(1)); err != nil {
			return fmt.Errorf("write namespace: %w", err)
		}
		p.first, err = listSockets()
	}
	return err
}

// leave closes the place after its last endpoint. The caller holds d.mu.
func (p *place) leave() error {
	if p.refs--; p.refs > 0 {
		return nil
	}
	delete(p.d.places, p.ns.cookie)
	return p.close()
}

func (p *place) close() error {
	p.stop()
	var errs []error
	if p.ln != nil {
		if err := p.ln.Close(); !errors.Is(err, net.ErrClosed) { // Refuse closed it
			errs = append(errs, err)
		}
	}
	p.wg.Wait()
	if p.addrs != nil {
		p.addrs.close()
	}
	errs = append(errs, p.forgetListening())
	if p.link != nil {
		errs = append(errs, p.link.Unpin(), p.link.Close())
	}
	if p.steer != nil {
		errs = append(errs, p.steer.Close())
	}
	return errors.Join(errs...)
}

// listen opens the listening socket; the caller is inside the namespace. Its port is
// the kernel's choice and receives nothing itself: only what sk_lookup assigns.
func (p *place) listen() error {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	lc.SetMultipathTCP(false)                    // a SOCKHASH takes no MPTCP socket
	ln, err := lc.Listen(p.ctx, "tcp", "[::]:0") // dual-stack
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		ln, err = lc.Listen(p.ctx, "tcp4", "0.0.0.0:0")
	}
	if err != nil {
		return err
	}
	p.ln = ln.(*net.TCPListener)
	return nil
}

// publish tells the kernel of the listener.
func (p *place) publish() error {
	return control(p.ln, func(fd uintptr) error {
		if err := p.d.objs.ProxyListeners.Put(uint32(fd), uint32(1)); err != nil {
			return fmt.Errorf("mark the proxy's listener: %w", err)
		}
		for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} {
			k := bpf.WeirListenerKey{Netns: p.ns.cookie, Family: family}
			if err := p.d.objs.Listeners.Put(k, uint64(fd)); err != nil {
				return fmt.Errorf("write listener: %w", err)
			}
		}
		return nil
	})
}

// load loads the steering program for this namespace. One that judges what arrives
// takes the kernel's verifier four times as long.
func (p *place) load(ingress bool) (*ebpf.Program, error) {
	spec := p.d.steer.Copy()
	if err := spec.Variables[bpf.SteerVarNetnsCookie].Set(p.ns.cookie); err != nil {
		return nil, fmt.Errorf("set namespace cookie: %w", err)
	}
	if ingress {
		if err := spec.Variables[bpf.SteerVarIngress].Set(uint32(1)); err != nil {
			return nil, fmt.Errorf("set ingress: %w", err)
		}
	}
	var objs bpf.SteerObjects
	err := spec.LoadAndAssign(&objs, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		bpf.SteerMapByNetns:   p.d.objs.ByNetns,
		bpf.SteerMapCounters:  p.d.objs.Counters,
		bpf.SteerMapEndpoints: p.d.objs.Endpoints,
		bpf.SteerMapEvents:    p.d.objs.Events,
		bpf.SteerMapFlows:     p.d.objs.Flows,
		bpf.SteerMapInherited: p.d.objs.Inherited,
		bpf.SteerMapListeners: p.d.objs.Listeners,
		bpf.SteerMapListening: p.d.objs.Listening,
		bpf.SteerMapPeers:     p.d.objs.Peers,
		bpf.SteerMapPolicy:    p.d.objs.Policy,
	}})
	if err != nil {
		return nil, fmt.Errorf("load sk_lookup program (`weir doctor` says what is missing): %w", err)
	}
	objs.SteerMaps.Close() // the program holds them
	return objs.WeirSteer, nil
}

// judgeIngress has the namespace's program judge what arrives, from now on. The
// caller holds d.mu.
func (p *place) judgeIngress() error {
	if p.judges {
		return nil
	}
	prog, err := p.load(true)
	if err != nil {
		return err
	}
	if err := p.link.Update(prog); err != nil {
		prog.Close()
		return fmt.Errorf("replace sk_lookup program: %w", err)
	}
	p.steer.Close()
	p.steer, p.judges = prog, true
	return nil
}

// attach attaches the steering program.
func (p *place) attach() (err error) {
	if p.steer, err = p.load(false); err != nil {
		return err
	}
	path := p.ns.path
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer unix.Close(fd)
	l, err := link.AttachNetNs(fd, p.steer)
	if errors.Is(err, unix.E2BIG) {
		return fmt.Errorf("attach sk_lookup program: this network namespace has 64 of them, the kernel's limit: end another `weir run` first: %w", err)
	}
	if err != nil {
		return fmt.Errorf("attach sk_lookup program: %w", err)
	}
	p.link = l
	if err := l.Pin(fmt.Sprintf("%s/steer-%d", p.d.pinDir, p.ns.cookie)); err != nil {
		return fmt.Errorf("pin link: %w", err)
	}
	return nil
}

func control(c syscall.Conn, f func(fd uintptr) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := rc.Control(func(fd uintptr) { inner = f(fd) }); err != nil {
		return err
	}
	return inner
}
