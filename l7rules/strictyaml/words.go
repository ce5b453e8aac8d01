package strictyaml

import "strings"

// unknownField says what to write instead of a field.
func (r *Reader) unknownField(name string, known []string) string {
	if why := r.Hints[name]; why != "" {
		return why
	}
	if near := Nearest(name, known); near != "" {
		return "unknown field: did you mean " + near + "?"
	}
	return "unknown field: one of " + strings.Join(known, ", ")
}

// Nearest returns the word that differs least, "" if none is near: the same but for its
// case, or at most a third of its letters changed.
func Nearest(word string, words []string) string {
	const longest = 64
	if len(word) > longest {
		return ""
	}
	best, found := longest, ""
	for _, w := range words {
		if d := distance(strings.ToLower(word), strings.ToLower(w)); d < best {
			best, found = d, w
		}
	}
	if best > max(1, len(found)/3) {
		return ""
	}
	return found
}

// distance counts the letters to insert, delete, change or swap with the next.
func distance(a, b string) int {
	row := func() []int { return make([]int, len(b)+1) }
	before, last, this := row(), row(), row()
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		this[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			this[j] = min(last[j]+1, this[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				this[j] = min(this[j], before[j-2]+1)
			}
		}
		before, last, this = last, this, before
	}
	return last[len(b)]
}
