package l7rules

import (
	"strconv"
	"strings"
)

// API keys that rules know more of than the name.
const (
	kafkaProduce                int16 = 0
	kafkaFetch                  int16 = 1
	kafkaListOffsets            int16 = 2
	kafkaMetadata               int16 = 3
	kafkaOffsetCommit           int16 = 8
	kafkaOffsetFetch            int16 = 9
	kafkaFindCoordinator        int16 = 10
	kafkaJoinGroup              int16 = 11
	kafkaHeartbeat              int16 = 12
	kafkaLeaveGroup             int16 = 13
	kafkaSyncGroup              int16 = 14
	kafkaSaslHandshake          int16 = 17
	kafkaAPIVersions            int16 = 18
	kafkaInitProducerID         int16 = 22
	kafkaOffsetForLeaderEpoch   int16 = 23
	kafkaAddPartitionsToTxn     int16 = 24
	kafkaAddOffsetsToTxn        int16 = 25
	kafkaEndTxn                 int16 = 26
	kafkaTxnOffsetCommit        int16 = 28
	kafkaSaslAuthenticate       int16 = 36
	kafkaConsumerGroupHeartbeat int16 = 68
)

// MaxCiliumKafkaKey is the last API key that Cilium has a name for.
const MaxCiliumKafkaKey = 33

// kafkaAPINames are the names of API keys: up to MaxCiliumKafkaKey as Cilium writes them,
// then as in Kafka's own list (https://kafka.apache.org/protocol#protocol_api_keys).
var kafkaAPINames = [...]string{
	0: "produce", 1: "fetch", 2: "offsets", 3: "metadata", 4: "leaderandisr", 5: "stopreplica", 6: "updatemetadata",
	7: "controlledshutdown", 8: "offsetcommit", 9: "offsetfetch", 10: "findcoordinator", 11: "joingroup", 12: "heartbeat",
	13: "leavegroup", 14: "syncgroup", 15: "describegroups", 16: "listgroups", 17: "saslhandshake", 18: "apiversions",
	19: "createtopics", 20: "deletetopics", 21: "deleterecords", 22: "initproducerid", 23: "offsetforleaderepoch",
	24: "addpartitionstotxn", 25: "addoffsetstotxn", 26: "endtxn", 27: "writetxnmarkers", 28: "txnoffsetcommit",
	29: "describeacls", 30: "createacls", 31: "deleteacls", 32: "describeconfigs", 33: "alterconfigs",
	34: "alterreplicalogdirs", 35: "describelogdirs", 36: "saslauthenticate", 37: "createpartitions",
	38: "createdelegationtoken", 39: "renewdelegationtoken", 40: "expiredelegationtoken", 41: "describedelegationtoken",
	42: "deletegroups", 43: "electleaders", 44: "incrementalalterconfigs", 45: "alterpartitionreassignments",
	46: "listpartitionreassignments", 47: "offsetdelete", 48: "describeclientquotas", 49: "alterclientquotas",
	50: "describeuserscramcredentials", 51: "alteruserscramcredentials", 55: "describequorum", 57: "updatefeatures",
	60: "describecluster", 61: "describeproducers", 65: "describetransactions", 66: "listtransactions",
	68: "consumergroupheartbeat", 69: "consumergroupdescribe", 71: "gettelemetrysubscriptions", 72: "pushtelemetry",
	74: "listconfigresources", 75: "describetopicpartitions",
}

// KafkaAPIName is the name of an API key, its number where it has none here.
func KafkaAPIName(key int16) string {
	if key >= 0 && int(key) < len(kafkaAPINames) && kafkaAPINames[key] != "" {
		return kafkaAPINames[key]
	}
	return strconv.Itoa(int(key))
}

// KafkaAPIKey is the key with a name, in any case.
func KafkaAPIKey(name string) (int16, bool) {
	if name == "" {
		return 0, false
	}
	for key, known := range kafkaAPINames {
		if strings.EqualFold(known, name) {
			return int16(key), true
		}
	}
	return 0, false
}

// KafkaAPINames are all names in the order of their keys.
func KafkaAPINames() []string {
	var names []string
	for _, n := range kafkaAPINames {
		if n != "" {
			names = append(names, n)
		}
	}
	return names
}
