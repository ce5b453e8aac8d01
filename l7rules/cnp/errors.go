package cnp

import (
	"github.com/weir-proxy/weir/l7rules/match"
	"github.com/weir-proxy/weir/l7rules/strictyaml"
)

// MaxFileLen is the size of the largest policy file, in bytes.
const MaxFileLen = 1 << 20

// What is found in a policy file.
type (
	// Error is one thing wrong in a policy file.
	Error = strictyaml.Error
	// Errors is everything wrong in a policy file, in the order of the file.
	Errors = strictyaml.Errors
	// Warning is something in a policy file that means what it says and is perhaps not
	// meant.
	Warning = strictyaml.Warning
)

// Short names for what every function here works with.
type (
	node   = strictyaml.Node
	object = strictyaml.Object
	pos    = strictyaml.Pos
)

const (
	kindNull   = strictyaml.Null
	kindScalar = strictyaml.Scalar
	kindMap    = strictyaml.Map
	kindList   = strictyaml.List
)

var (
	join    = strictyaml.Join
	index   = strictyaml.Index
	quote   = strictyaml.Quote
	nearest = strictyaml.Nearest
)

// reader collects what is found in one file.
type reader struct {
	strictyaml.Reader
	patterns map[string]*match.Pattern // by what is written
	cost     int                       // of patterns
}

func newReader(filename string) *reader {
	return &reader{Reader: strictyaml.Reader{File: filename, MaxLen: MaxFileLen}, patterns: map[string]*match.Pattern{}}
}
