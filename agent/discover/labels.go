//go:build linux

package discover

import (
	"fmt"
	"strings"

	"github.com/weir-proxy/weir/identity"
)

// Labels that say what the engine knows of a container, all of source "container". A
// Docker label of the same key is not taken.
const (
	KeyName           = "name"            // without the slash
	KeyImage          = "image"           // as the container's owner wrote it: shop/web:1.2
	KeyComposeService = "compose.service" // of a container that docker compose made
	KeyComposeProject = "compose.project"
)

const (
	composePrefix  = "com.docker.compose."
	composeService = composePrefix + "service"
	composeProject = composePrefix + "project"
	// Compose gives every container a number and never an image, while it labels
	// images that it builds with project and service.
	composeNumber = composePrefix + "container-number"
)

// tooLong stands for a value that no selector can name.
const tooLong = "%"

// makeLabels are the labels of a container. What its image brings is left out: the
// author of an image must not decide who may talk to whom. Labels have rules that
// Docker's do not: bytes that cannot stand in one are written %XX, a value that is too
// long is "%".
func makeLabels(name, image string, docker, ofImage map[string]string) (identity.Labels, error) {
	fromImage := func(key string) bool {
		v, ok := ofImage[key]
		return ok && v == docker[key]
	}
	_, compose := docker[composeNumber]
	compose = compose && !fromImage(composeNumber)

	labels := []identity.Label{{Source: identity.SourceK8s, Key: identity.NamespaceKey, Value: identity.DefaultNamespace}}
	have := map[string]bool{}
	add := func(key, value string) {
		if have[key] {
			return
		}
		have[key] = true
		labels = append(labels, identity.Label{Source: identity.SourceContainer, Key: key, Value: encodeValue(value)})
	}
	add(KeyName, name)
	add(KeyImage, image)
	if compose {
		add(KeyComposeService, docker[composeService])
		add(KeyComposeProject, docker[composeProject])
	}
	for key, value := range docker {
		if fromImage(key) && !(compose && strings.HasPrefix(key, composePrefix)) {
			continue
		}
		if key := encodeKey(key); key != "" && !claimed(key) {
			add(key, value)
		}
	}
	return identity.NewLabels(labels...)
}

// claimed reports whether a key means something that a Docker label cannot give: a
// bare key in a selector matches labels of every source.
func claimed(key string) bool {
	switch key {
	case KeyName, KeyImage, KeyComposeService, KeyComposeProject, identity.NamespaceKey, identity.ServiceAccountKey:
		return true
	}
	return strings.HasPrefix(key, "io.cilium.")
}

// encodeKey is key as identity takes it; "" if it is too long to be named at all.
func encodeKey(key string) string {
	key = encode(key, " %=,:")
	if len(key) > identity.MaxLabelLen {
		return ""
	}
	return key
}

func encodeValue(value string) string {
	value = encode(value, ",")
	if len(value) > identity.MaxLabelLen {
		return tooLong
	}
	return value
}

func encode(s, also string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || strings.IndexByte(also, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
