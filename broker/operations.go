package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// The operations that Kafka knows for a resource, as the bits in which clients
// are told which of them they may do (KIP-430). There are no ACLs, so these are
// all of them, as in Kafka without an authorizer.
const (
	operationsOnCluster = 1<<kmsg.ACLOperationCreate | 1<<kmsg.ACLOperationAlter | 1<<kmsg.ACLOperationDescribe |
		1<<kmsg.ACLOperationClusterAction | 1<<kmsg.ACLOperationDescribeConfigs | 1<<kmsg.ACLOperationAlterConfigs |
		1<<kmsg.ACLOperationIdempotentWrite
	operationsOnTopic = 1<<kmsg.ACLOperationRead | 1<<kmsg.ACLOperationWrite | 1<<kmsg.ACLOperationCreate |
		1<<kmsg.ACLOperationDelete | 1<<kmsg.ACLOperationAlter | 1<<kmsg.ACLOperationDescribe |
		1<<kmsg.ACLOperationDescribeConfigs | 1<<kmsg.ACLOperationAlterConfigs
	operationsOnGroup = 1<<kmsg.ACLOperationRead | 1<<kmsg.ACLOperationDelete | 1<<kmsg.ACLOperationDescribe |
		1<<kmsg.ACLOperationDescribeConfigs | 1<<kmsg.ACLOperationAlterConfigs
)

// authorizedOperations returns the operations if they were asked for, and else
// what stands for an answer without them.
func authorizedOperations(asked bool, operations int32) int32 {
	const omitted = -1 << 31
	if !asked {
		return omitted
	}
	return operations
}
