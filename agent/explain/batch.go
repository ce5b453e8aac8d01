package explain

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxQueryLen is the longest line of a batch, in bytes.
const maxQueryLen = 1 << 20

// Summary is what became of the queries of a batch.
type Summary struct {
	Forwarded, Dropped int
	Wrong              int // that are no query, or that the policies cannot answer
}

// Batch reads queries, a JSON object each line, and answers each with a line: what
// WriteJSON writes, or {"error": "..."}. Empty lines are skipped. The error says that
// reading or writing failed.
func (s *Set) Batch(r io.Reader, w io.Writer) (Summary, error) {
	var sum Summary
	out := bufio.NewWriter(w)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxQueryLen)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		a, err := s.askLine(line)
		switch {
		case err != nil:
			sum.Wrong++
			err = writeError(out, err)
		case a.through():
			sum.Forwarded++
			err = a.WriteJSON(out)
		default:
			sum.Dropped++
			err = a.WriteJSON(out)
		}
		if err != nil {
			return sum, err
		}
		// Whoever asks one question at a time waits for the answer.
		if err := out.Flush(); err != nil {
			return sum, fmt.Errorf("write answer: %w", err)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return sum, fmt.Errorf("read queries: a line of more than %d bytes", maxQueryLen)
	} else if err != nil {
		return sum, fmt.Errorf("read queries: %w", err)
	}
	return sum, nil
}

func (s *Set) askLine(line []byte) (*Answer, error) {
	var q Query
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return nil, fmt.Errorf("read query: %w", err)
	}
	if d.More() {
		return nil, fmt.Errorf("read query: more than one object in the line")
	}
	return s.Ask(q)
}

func writeError(w io.Writer, err error) error {
	return writeJSON(w, map[string]string{"error": err.Error()})
}
