package l7rules

import (
	"slices"
	"strings"
)

// maxHeaderNames bounds the names that are looked for in each request.
const maxHeaderNames = 8

// headerIndex tells which headers with one exact value a request has, among those that
// rules ask for first: thousands of rules that differ in a key only are then not tried one
// after another.
type headerIndex struct {
	names  [][]byte            // lower case
	values []map[string]uint32 // by name: the number of a value, from 1 on
	others bool                // some rules ask for none of them
}

// makeHeaders numbers them, and leaves 0 to rules that ask for none, or to all where that
// would be too many names.
func (x *httpIndex) makeHeaders() {
	type field struct{ name, value string }
	numbers := map[field]uint32{}
	h := &x.headers
	for rank := range x.uses {
		i := slices.IndexFunc(x.rule(uint32(rank)).headers, func(m headerMatch) bool { return m.exact })
		if i < 0 {
			h.others = true
			continue
		}
		m := &x.rule(uint32(rank)).headers[i]
		f := field{strings.ToLower(string(m.name)), string(m.value)}
		number, ok := numbers[f]
		if !ok {
			number = uint32(len(numbers) + 1)
			numbers[f] = number
			at := slices.IndexFunc(h.names, func(name []byte) bool { return string(name) == f.name })
			if at < 0 {
				at = len(h.names)
				h.names = append(h.names, []byte(f.name))
				h.values = append(h.values, map[string]uint32{})
			}
			h.values[at][f.value] = number
		}
		x.uses[rank][fieldHeader] = number
	}
	if len(h.names) > maxHeaderNames {
		*h = headerIndex{others: true}
		for rank := range x.uses {
			x.uses[rank][fieldHeader] = 0
		}
	}
}

// match lists the numbers of the fields that a request has, and 0 where some rules ask for
// none. Where the sender repeats a field each of them counts: whether that is a match is
// for headerMatch to say.
func (h *headerIndex) match(list []uint32, r *HTTPRequest) []uint32 {
	if h.others {
		list = append(list, 0)
	}
	for i, name := range h.names {
		for j := range r.Header {
			if equalFold(r.Header[j].Name, name) {
				if number, ok := h.values[i][string(r.Header[j].Value)]; ok && !slices.Contains(list, number) {
					list = append(list, number)
				}
			}
		}
	}
	return list
}
