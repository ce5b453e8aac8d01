//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// hooks are the kinds of program that Weir attaches.
var hooks = []struct {
	name string
	typ  ebpf.ProgramType
	at   ebpf.AttachType
}{
	{"cgroup/sock_create", ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate},
	{"cgroup/connect4", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect},
	{"cgroup/connect6", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Connect},
	{"cgroup/getpeername4", ebpf.CGroupSockAddr, ebpf.AttachCgroupInet4GetPeername},
	{"cgroup/getpeername6", ebpf.CGroupSockAddr, ebpf.AttachCgroupInet6GetPeername},
	{"cgroup/sendmsg4", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP4Sendmsg},
	{"cgroup/sendmsg6", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP6Sendmsg},
	{"cgroup_skb/egress", ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress},
	{"cgroup/setsockopt", ebpf.CGroupSockopt, ebpf.AttachCGroupSetsockopt},
	{"cgroup_skb/ingress", ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress},
	{"sockops", ebpf.SockOps, ebpf.AttachCGroupSockOps},
	{"sk_lookup", ebpf.SkLookup, ebpf.AttachSkLookup},
}

// mapTypes are the kinds of map that Weir's programs use.
var mapTypes = []ebpf.MapType{ebpf.Hash, ebpf.PerCPUArray, ebpf.LPMTrie, ebpf.SockHash, ebpf.SkStorage, ebpf.RingBuf}

// helpers are the calls that Weir's programs make and older kernels lack.
var helpers = []struct {
	name string
	typ  ebpf.ProgramType
	fns  []asm.BuiltinFunc
}{
	{"cgroup/sock_create", ebpf.CGroupSock, []asm.BuiltinFunc{asm.FnSkStorageGet, asm.FnGetNetnsCookie, asm.FnGetCurrentAncestorCgroupId}},
	{"cgroup/connect4", ebpf.CGroupSockAddr, []asm.BuiltinFunc{
		asm.FnSkStorageGet, asm.FnGetNetnsCookie, asm.FnGetCurrentAncestorCgroupId, asm.FnSkLookupTcp, asm.FnSetsockopt,
		asm.FnSetRetval, asm.FnGetSocketCookie, asm.FnRingbufReserve, asm.FnSkcToMptcpSock,
	}},
	{"cgroup_skb/egress", ebpf.CGroupSKB, []asm.BuiltinFunc{asm.FnSkStorageGet}},
	{"sockops", ebpf.SockOps, []asm.BuiltinFunc{
		asm.FnSkStorageGet, asm.FnGetNetnsCookie, asm.FnSkcToMptcpSock, asm.FnSkcToTcpSock, asm.FnRingbufReserve,
	}},
	{"sk_lookup", ebpf.SkLookup, []asm.BuiltinFunc{asm.FnSkAssign, asm.FnRingbufReserve}},
}

// programs tries what the kernel half of Weir is made of.
func (e *exam) programs() {
	if !e.root {
		e.add(Unknown, "BPF programs, maps and helpers", "needs root to find out", "")
		return
	}
	err := features.HaveMapType(ebpf.Array)
	if errors.Is(err, unix.EPERM) {
		e.add(Missing, "bpf(2)", "refused", e.here.moreRights())
		e.refused = true // and so would be all that follows
		return
	}
	e.test("bpf(2)", e.here.newerKernel(), err)
	for _, h := range hooks {
		p, err := load(h.typ, h.at)
		if err == nil {
			p.Close()
		}
		e.test(h.name+" programs", e.here.newerKernel(), short(err))
	}
	for _, m := range mapTypes {
		e.test(fmt.Sprintf("%s maps", m), e.here.newerKernel(), features.HaveMapType(m))
	}
	for _, h := range helpers {
		var errs []error
		for _, fn := range h.fns {
			if err := features.HaveProgramHelper(h.typ, fn); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", helperName(fn), err))
			}
		}
		e.test("helpers of "+h.name+" programs", e.here.newerKernel(), errors.Join(errs...))
	}
	e.test("BPF instructions of version 3", e.here.newerKernel(), features.HaveV3ISA())
}

// helperName is a helper's name in C: bpf_sk_storage_get of FnSkStorageGet.
func helperName(fn asm.BuiltinFunc) string {
	var b strings.Builder
	for i, c := range strings.TrimPrefix(fn.String(), "Fn") {
		if unicode.IsUpper(c) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return "bpf_" + b.String()
}

// short drops the verifier's log, which runs over many lines.
func short(err error) error {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		return ve.Cause
	}
	return err
}
