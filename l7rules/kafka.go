package l7rules

import (
	"slices"
	"strconv"
	"strings"

	"github.com/weir-proxy/weir/l7rules/flow"
)

// KafkaRequest is the part of a request to a Kafka broker that is judged at once: one
// resource that it names, or none. A request that names several topics, groups or
// transactional ids is as many KafkaRequests, each judged alone.
type KafkaRequest struct {
	APIKey        int16
	APIVersion    int16
	CorrelationID int32
	ClientID      string
	Resource      KafkaResource
	Name          string // of the resource; "" for the cluster and for none
}

// KafkaResource is a kind of resource. The zero value is the one that fewest rules cover.
type KafkaResource uint8

// Kinds of resources.
const (
	KafkaCluster     KafkaResource = iota // the brokers themselves, and whatever is none of the others
	KafkaNone                             // nothing: what a client asks before it names anything
	KafkaTopic                            // by its name; one whose id is not known by name is for the handler to refuse
	KafkaGroup                            // of consumers
	KafkaTransaction                      // a transactional id
)

// String names a kind for a person.
func (k KafkaResource) String() string {
	switch k {
	case KafkaNone:
		return "nothing"
	case KafkaTopic:
		return "topic"
	case KafkaGroup:
		return "group"
	case KafkaTransaction:
		return "transactional id"
	}
	return "cluster"
}

var _ flow.Request = (*KafkaRequest)(nil)

// Type implements flow.Request.
func (*KafkaRequest) Type() string { return "kafka-request" }

// AppendText implements flow.Request: "Kafka request produce v9 correlation id 7 topic 'orders'".
func (r *KafkaRequest) AppendText(dst []byte) []byte {
	dst = append(dst, "Kafka request "...)
	dst = append(dst, KafkaAPIName(r.APIKey)...)
	dst = strconv.AppendInt(append(dst, " v"...), int64(r.APIVersion), 10)
	dst = strconv.AppendInt(append(dst, " correlation id "...), int64(r.CorrelationID), 10)
	switch r.Resource {
	case KafkaTopic, KafkaGroup, KafkaTransaction:
		dst = append(append(append(dst, ' '), r.Resource.String()...), " '"...)
		dst = append(flow.AppendEscaped(dst, r.Name), '\'')
	case KafkaCluster:
		dst = append(dst, " cluster"...)
	}
	return dst
}

// AppendJSON implements flow.Request with Hubble's words.
func (r *KafkaRequest) AppendJSON(dst []byte) []byte {
	dst = strconv.AppendInt(append(dst, `{"api_version":`...), int64(r.APIVersion), 10)
	dst = append(append(append(dst, `,"api_key":"`...), KafkaAPIName(r.APIKey)...), '"')
	dst = strconv.AppendInt(append(dst, `,"correlation_id":`...), int64(r.CorrelationID), 10)
	switch r.Resource {
	case KafkaTopic:
		dst = flow.AppendJSONString(append(dst, `,"topic":`...), r.Name)
	case KafkaGroup:
		dst = flow.AppendJSONString(append(dst, `,"group":`...), r.Name)
	case KafkaTransaction:
		dst = flow.AppendJSONString(append(dst, `,"transactional_id":`...), r.Name)
	}
	if r.ClientID != "" {
		dst = flow.AppendJSONString(append(dst, `,"client_id":`...), r.ClientID)
	}
	return append(dst, '}')
}

// KafkaRole stands for the requests that a producer or a consumer makes.
type KafkaRole string

// Roles.
const (
	KafkaProduce KafkaRole = "produce"
	KafkaConsume KafkaRole = "consume"
)

// KafkaName compares the name of a resource. The zero value is for any.
type KafkaName struct {
	Value  string
	Prefix bool // Value is what it begins with
}

func (n KafkaName) matches(name string) bool {
	if n.Prefix {
		return strings.HasPrefix(name, n.Value)
	}
	return n.Value == "" || n.Value == name
}

// text is for a person.
func (n KafkaName) text() string {
	if n.Prefix {
		return n.Value + "..."
	}
	return n.Value
}

// KafkaRule covers requests. All of its fields must match; what is not given matches
// everything.
//
// Topic, Group and TransactionalID are about requests that name such a resource. To allow
// {role: consume, topic: t} means every group as well, as in Cilium, and what names
// nothing; requests to the cluster itself need a rule without any of the three and without
// a role. In a deny rule it is the other way round: {topic: t} refuses what names t and
// nothing else, and a role stands for what the other role has not.
type KafkaRule struct {
	Origin Origin
	// Role or APIKeys say which requests; without both it is every one.
	Role            KafkaRole
	APIKeys         []int16
	APIVersion      *int16
	ClientID        string // chosen by the client: no security
	Topic           KafkaName
	Group           KafkaName
	TransactionalID KafkaName
}

// kafkaRoles are the requests of each role with the kinds of resources in them; every one
// may also name nothing. Cilium 1.19 had fewer: today's producers are idempotent and begin
// with InitProducerId, and both roles work in transactions (KIP-98).
var kafkaRoles = map[KafkaRole]map[int16][]KafkaResource{
	KafkaProduce: {
		kafkaProduce:            {KafkaTopic, KafkaTransaction},
		kafkaMetadata:           {KafkaTopic},
		kafkaFindCoordinator:    {KafkaTransaction},
		kafkaInitProducerID:     {KafkaTransaction},
		kafkaAddPartitionsToTxn: {KafkaTopic, KafkaTransaction},
		kafkaAddOffsetsToTxn:    {KafkaTransaction},
		kafkaEndTxn:             {KafkaTransaction},
		kafkaTxnOffsetCommit:    {KafkaTransaction},
	},
	KafkaConsume: {
		kafkaFetch:                  {KafkaTopic},
		kafkaListOffsets:            {KafkaTopic},
		kafkaMetadata:               {KafkaTopic},
		kafkaOffsetCommit:           {KafkaTopic, KafkaGroup},
		kafkaOffsetFetch:            {KafkaTopic, KafkaGroup},
		kafkaFindCoordinator:        {KafkaGroup},
		kafkaJoinGroup:              {KafkaGroup},
		kafkaHeartbeat:              {KafkaGroup},
		kafkaLeaveGroup:             {KafkaGroup},
		kafkaSyncGroup:              {KafkaGroup},
		kafkaOffsetForLeaderEpoch:   {KafkaTopic},
		kafkaAddOffsetsToTxn:        {KafkaGroup},
		kafkaTxnOffsetCommit:        {KafkaTopic, KafkaGroup},
		kafkaConsumerGroupHeartbeat: {KafkaTopic, KafkaGroup},
	},
}

// has reports whether a role's own requests include r.
func (role KafkaRole) has(r *KafkaRequest) bool {
	kinds, ok := kafkaRoles[role][r.APIKey]
	return ok && (r.Resource == KafkaNone || slices.Contains(kinds, r.Resource))
}

func (role KafkaRole) other() KafkaRole {
	if role == KafkaProduce {
		return KafkaConsume
	}
	return KafkaProduce
}

// isKafkaHello reports whether r is what every client begins with, before it says what it
// wants: it is allowed wherever any rule for Kafka is.
func isKafkaHello(r *KafkaRequest) bool {
	if r.Resource != KafkaNone {
		return false
	}
	return r.APIKey == kafkaSaslHandshake || r.APIKey == kafkaAPIVersions || r.APIKey == kafkaSaslAuthenticate
}

// head reports whether the fields match that are about no resource.
func (k *KafkaRule) head(r *KafkaRequest) bool {
	return (k.APIKeys == nil || slices.Contains(k.APIKeys, r.APIKey)) &&
		(k.APIVersion == nil || *k.APIVersion == r.APIVersion) &&
		(k.ClientID == "" || k.ClientID == r.ClientID)
}

func (k *KafkaRule) allows(r *KafkaRequest) bool {
	if !k.head(r) || k.Role != "" && !k.Role.has(r) {
		return false
	}
	switch r.Resource {
	case KafkaNone:
		return true
	case KafkaTopic:
		return k.Topic.matches(r.Name)
	case KafkaGroup:
		return k.Group.matches(r.Name)
	case KafkaTransaction:
		return k.TransactionalID.matches(r.Name)
	}
	return k.Role == "" && !k.namesResource()
}

func (k *KafkaRule) denies(r *KafkaRequest) bool {
	if !k.head(r) || k.Role != "" && (!k.Role.has(r) || k.Role.other().has(r)) {
		return false
	}
	if !k.namesResource() {
		return true
	}
	for _, n := range []struct {
		kind KafkaResource
		name KafkaName
	}{{KafkaTopic, k.Topic}, {KafkaGroup, k.Group}, {KafkaTransaction, k.TransactionalID}} {
		if n.name != (KafkaName{}) && n.kind == r.Resource && n.name.matches(r.Name) {
			return true
		}
	}
	return false
}

func (k *KafkaRule) namesResource() bool {
	return k.Topic != (KafkaName{}) || k.Group != (KafkaName{}) || k.TransactionalID != (KafkaName{})
}
