package cilium

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// oracle puts questions to both engines.
type oracle struct {
	logger *slog.Logger
	server *apiServer
}

func newOracle() (*oracle, error) {
	configure()
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	server, err := newAPIServer(logger)
	if err != nil {
		return nil, err
	}
	return &oracle{logger, server}, nil
}

// disagreement is something the engines do not agree on: whether a document can be
// read if there is no connection, else what happens to it.
type disagreement struct {
	docs                 []document
	connection           *connection
	ours, theirs         verdict
	ourError, theirError error
}

func (d *disagreement) String() string {
	s := file(d.docs)
	if d.connection != nil {
		s += d.connection.String() + "\n"
	}
	answer := func(v verdict, err error) string {
		switch {
		case err != nil:
			return "error: " + err.Error()
		case d.connection == nil:
			return "reads it"
		}
		return v.String()
	}
	return fmt.Sprintf("%s  Weir:   %s\n  Cilium: %s", s, answer(d.ours, d.ourError), answer(d.theirs, d.theirError))
}

// read puts one document to both. It returns it as Cilium took it if both did.
func (o *oracle) read(doc document) (*accepted, *disagreement) {
	t := text(doc)
	_, ourError := newOurs(t)
	a, theirError := o.server.accept(t)
	switch {
	case (ourError == nil) != (theirError == nil):
		return nil, &disagreement{docs: []document{doc}, ourError: ourError, theirError: theirError}
	case ourError != nil:
		return nil, nil
	}
	a.text = t
	return a, nil
}

// world is a set of documents that both engines have read.
type world struct {
	docs   []document
	ours   *ours
	theirs *theirs
}

// newWorld leaves out the documents that one of the engines refuses and returns the
// disagreements about them.
func (o *oracle) newWorld(docs []document) (*world, []*disagreement, error) {
	w := &world{}
	var all []*accepted
	var texts []string
	var disagreements []*disagreement
	for _, doc := range docs {
		a, d := o.read(doc)
		if d != nil {
			disagreements = append(disagreements, d)
		}
		if a != nil {
			w.docs, all, texts = append(w.docs, doc), append(all, a), append(texts, a.text)
		}
	}
	var err error
	if w.ours, err = newOurs(strings.Join(texts, separator)); err != nil {
		return nil, disagreements, fmt.Errorf("documents that can be read one by one cannot together: %w", err)
	}
	if err := w.ours.resolve(); err != nil {
		w.ours.resolver = nil // some endpoint's policies contradict each other; judge says so
	}
	w.theirs = newTheirs(o.logger, all)
	return w, disagreements, nil
}

// judge puts one connection to both.
func (w *world) judge(c *connection) (verdict, *disagreement) {
	ours, ourError := w.ours.judge(c)
	theirs, theirError := w.theirs.judge(c)
	if (ourError == nil) == (theirError == nil) && ours.allowed == theirs.allowed && ours.proxied == theirs.proxied && slices.Equal(ours.requests, theirs.requests) {
		return ours, nil
	}
	return ours, &disagreement{docs: w.docs, connection: c, ours: ours, theirs: theirs, ourError: ourError, theirError: theirError}
}
