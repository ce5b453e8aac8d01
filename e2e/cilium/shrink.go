package cilium

import (
	"regexp"
	"slices"
)

// shrink returns the smallest disagreement of the same kind that taking things away
// one by one leads to: documents, fields, elements of lists, requests.
func (o *oracle) shrink(d *disagreement) *disagreement {
	for {
		smaller := o.shrinkOnce(d)
		if smaller == nil {
			return d
		}
		d = smaller
	}
}

func (o *oracle) shrinkOnce(d *disagreement) *disagreement {
	if c := d.connection; c != nil {
		for i := range c.requests {
			less := *c
			less.requests = slices.Delete(slices.Clone(c.requests), i, i+1)
			if s := o.again(d, d.docs, &less); s != nil {
				return s
			}
		}
		for i := range d.docs {
			if s := o.again(d, slices.Delete(slices.Clone(d.docs), i, i+1), c); s != nil {
				return s
			}
		}
	}
	for i := range d.docs {
		for j := range places(d.docs[i]) {
			docs := slices.Clone(d.docs)
			docs[i] = clone(d.docs[i]).(document)
			places(docs[i])[j].remove()
			if s := o.again(d, docs, d.connection); s != nil {
				return s
			}
		}
	}
	return nil
}

// again asks about less and returns the disagreement if it is of the kind of d.
func (o *oracle) again(d *disagreement, docs []document, c *connection) *disagreement {
	if c == nil {
		_, s := o.read(docs[0])
		if s == nil || gist(s.ourError) != gist(d.ourError) || gist(s.theirError) != gist(d.theirError) || s.explanation() != d.explanation() {
			return nil
		}
		return s
	}
	w, _, err := o.newWorld(docs)
	if err != nil || len(w.docs) != len(docs) {
		return nil
	}
	_, s := w.judge(c)
	if s == nil || s.explanation() != d.explanation() {
		return nil
	}
	return s
}

var particulars = regexp.MustCompile(`"[^"]*"|[a-zA-Z]+\.[^ ]*|[^ ]*[\[0-9][^ ]*`)

// gist is what an error says without where and about what.
func gist(err error) string {
	if err == nil {
		return ""
	}
	return particulars.ReplaceAllString(err.Error(), "")
}
