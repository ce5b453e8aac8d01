package cnp

import (
	"os"
	"regexp"
	"testing"
)

// The examples of the manual are read without a word.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1)
	for _, b := range blocks {
		if policies, warnings, err := Parse("policy.md", b[1]); err != nil || len(warnings) > 0 || len(policies) != 1 {
			t.Errorf("%d policies, %v, %v from\n%s", len(policies), warnings, err, b[1])
		}
	}
	if len(blocks) != 2 {
		t.Errorf("%d examples", len(blocks))
	}
}
