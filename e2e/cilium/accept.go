package cilium

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	ipcachetypes "github.com/cilium/cilium/pkg/ipcache/types"
	"github.com/cilium/cilium/pkg/k8s"
	"github.com/cilium/cilium/pkg/k8s/apis/cilium.io/client"
	v2 "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2"
	networkingv1 "github.com/cilium/cilium/pkg/k8s/slim/k8s/api/networking/v1"
	"github.com/cilium/cilium/pkg/policy/api"
	"github.com/cilium/cilium/pkg/policy/types"
	policyutils "github.com/cilium/cilium/pkg/policy/utils"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// The name of the cluster, which becomes a label of every endpoint.
const clusterName = "default"

// crd is the schema of one kind, as the API server applies it.
type crd struct {
	clusterwide bool
	structural  *schema.Structural
	validator   validation.SchemaValidator
}

// apiServer accepts documents as `kubectl apply` and the agent after it do: strict
// about unknown and duplicate fields.
type apiServer struct {
	logger *slog.Logger
	kinds  map[string]*crd
}

func newAPIServer(logger *slog.Logger) (*apiServer, error) {
	s := &apiServer{logger, map[string]*crd{}}
	for kind, name := range map[string]string{v2.CNPKindDefinition: client.CNPCRDName, v2.CCNPKindDefinition: client.CCNPCRDName} {
		definition := client.GetPregeneratedCRD(logger, name)
		var internal apiextensions.JSONSchemaProps
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(definition.Spec.Versions[0].Schema.OpenAPIV3Schema, &internal, nil); err != nil {
			return nil, err
		}
		c := &crd{clusterwide: kind == v2.CCNPKindDefinition}
		var err error
		if c.structural, err = schema.NewStructural(&internal); err != nil {
			return nil, err
		}
		if c.validator, _, err = validation.NewSchemaValidator(&internal); err != nil {
			return nil, err
		}
		s.kinds[kind] = c
	}
	return s, nil
}

// accepted is a document that Cilium took.
type accepted struct {
	text     string
	resource ipcachetypes.ResourceID
	entries  types.PolicyEntries
}

// accept reads one document.
func (s *apiServer) accept(text string) (*accepted, error) {
	data, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return nil, err
	}
	var object map[string]any
	if err := json.Unmarshal(data, &object); err != nil {
		return nil, err
	}
	kind, _ := object["kind"].(string)
	if kind == "NetworkPolicy" && object["apiVersion"] == "networking.k8s.io/v1" {
		return s.acceptNetworkPolicy(data)
	}
	c, ok := s.kinds[kind]
	if version := object["apiVersion"]; !ok || version != v2.CustomResourceDefinitionGroup+"/v2" {
		return nil, fmt.Errorf("no matches for kind %q in version %q", kind, version)
	}
	meta, err := c.validate(object)
	if err != nil {
		return nil, err
	}
	if data, err = json.Marshal(object); err != nil {
		return nil, err
	}
	var rules api.Rules
	resource := ipcachetypes.ResourceKindCNP
	if c.clusterwide {
		var doc v2.CiliumClusterwideNetworkPolicy
		if err := json.Unmarshal(data, &doc); err != nil {
			return nil, err
		}
		resource = ipcachetypes.ResourceKindCCNP
		rules, err = doc.DeepCopy().Parse(s.logger, clusterName)
	} else {
		var doc v2.CiliumNetworkPolicy
		if err := json.Unmarshal(data, &doc); err != nil {
			return nil, err
		}
		doc.Namespace = meta.Namespace
		rules, err = doc.DeepCopy().Parse(s.logger, clusterName)
	}
	return &accepted{resource: ipcachetypes.NewResourceID(resource, meta.Namespace, meta.Name), entries: policyutils.RulesToPolicyEntries(rules)}, err
}

// acceptNetworkPolicy reads a NetworkPolicy that is right: the API server's validation of it
// is not a schema, and not here.
func (s *apiServer) acceptNetworkPolicy(data []byte) (*accepted, error) {
	var doc networkingv1.NetworkPolicy
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	if doc.Namespace == "" {
		doc.Namespace = metav1.NamespaceDefault
	}
	if len(doc.Spec.PolicyTypes) == 0 { // the API server's default
		doc.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(doc.Spec.Egress) > 0 {
			doc.Spec.PolicyTypes = append(doc.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	entries, err := k8s.ParseNetworkPolicy(s.logger, clusterName, &doc)
	return &accepted{resource: ipcachetypes.NewResourceID(ipcachetypes.ResourceKindNetpol, doc.Namespace, doc.Name), entries: entries}, err
}

// validate changes the object as the API server does before it stores it.
func (c *crd) validate(object map[string]any) (*metav1.ObjectMeta, error) {
	meta, found, unknown, err := objectmeta.GetObjectMetaWithOptions(object, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, errors.New("metadata.name: Required value")
	}
	unknown = append(unknown, pruning.PruneWithOptions(object, c.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})...)
	if len(unknown) > 0 {
		return nil, fmt.Errorf("unknown field %q", unknown)
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(object, c.structural)
	defaulting.Default(object, c.structural)
	switch {
	case c.clusterwide && meta.Namespace != "":
		return nil, errors.New("namespace: must not be set on a cluster-scoped object")
	case !c.clusterwide && meta.Namespace == "":
		meta.Namespace = metav1.NamespaceDefault
	}
	errs := apivalidation.ValidateObjectMeta(meta, !c.clusterwide, apivalidation.NameIsDNSSubdomain, nil)
	// An object of a namespace that cannot exist is never stored.
	if !c.clusterwide {
		for _, text := range apivalidation.ValidateNamespaceName(meta.Namespace, false) {
			return nil, fmt.Errorf("namespace: %s", text)
		}
	}
	errs = append(errs, validation.ValidateCustomResource(nil, object, c.validator)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, c.structural, object)...)
	return meta, errs.ToAggregate()
}
