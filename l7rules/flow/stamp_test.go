package flow

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestStamp(t *testing.T) {
	times := []time.Time{{}, time.Unix(0, 0), time.Date(2026, 2, 9, 3, 4, 5, 6e6, time.UTC), time.Date(2026, 12, 31, 23, 59, 59, 999999999, time.Local)}
	for range 1000 {
		times = append(times, time.Unix(rand.Int64N(1<<33), rand.Int64N(1e9)))
	}
	for _, tm := range times {
		if got, want := string(appendStamp(nil, tm)), tm.Format(time.StampMilli); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}
