package cilium

import (
	"github.com/cilium/cilium/pkg/endpoint/regeneration"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/types"
	"github.com/cilium/cilium/pkg/spanstat"
	"github.com/cilium/cilium/pkg/u8proto"
)

// What Cilium's engine asks of its surroundings and gets nothing useful from.

type noMetrics struct{}

func (noMetrics) AddRule(types.PolicyEntry) {}
func (noMetrics) DelRule(types.PolicyEntry) {}

type noStatistics struct{}

func (noStatistics) WaitingForPolicyRepository() *spanstat.SpanStat { return &spanstat.SpanStat{} }
func (noStatistics) SelectorPolicyCalculation() *spanstat.SpanStat  { return &spanstat.SpanStat{} }

// owner is the endpoint that a policy is made for.
type owner uint16

func (o owner) GetID() uint64                                   { return uint64(o) }
func (owner) GetNamedPort(bool, string, u8proto.U8proto) uint16 { return 0 }
func (owner) PolicyDebug(string, ...any)                        {}
func (owner) IsHost() bool                                      { return false }
func (owner) PreviousMapState() *policy.MapState                { return nil }
func (owner) RegenerateIfAlive(*regeneration.ExternalRegenerationMetadata) <-chan bool {
	done := make(chan bool)
	close(done)
	return done
}
