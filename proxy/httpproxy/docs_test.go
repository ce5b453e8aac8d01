package httpproxy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// docs/http.md names every reason for which a message is refused, and a test shows each.
func TestEveryReasonIsDocumentedAndTested(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	targets, err := os.ReadFile("testdata/targets.txt")
	if err != nil {
		t.Fatal(err)
	}
	tested := string(targets)
	for _, name := range []string{"basic", "framing", "heads", "hop", "responses"} {
		b, err := os.ReadFile("testdata/" + name + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		tested += string(b)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		lit, ok := spec.Values[0].(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		reason, err := strconv.Unquote(lit.Value)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if !strings.Contains(string(doc), reason) {
			t.Errorf("docs/http.md does not say %q", reason)
		}
		if !strings.Contains(tested, reason) {
			t.Errorf("no test shows %q", reason)
		}
		return true
	})
	if n < 40 {
		t.Errorf("found %d reasons only", n)
	}
}
