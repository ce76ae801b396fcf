package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/streamhouse/streamhouse/broker/group"
	"github.com/streamhouse/streamhouse/protocol"
)

// JoinGroup, v0 to v9. KIP-62 (rebalance timeout, v1), KIP-394 (member id
// required, v4), KIP-345 (static members, v5), KIP-559 (protocol type, v7),
// KIP-800 (reason, v8), KIP-814 (skip assignment, v9). It is answered when the
// rebalance is over.
func (b *Broker) joinGroup(_ context.Context, req *protocol.Request) protocol.Reply {
	r := req.Body.(*kmsg.JoinGroupRequest)
	resp := r.ResponseKind().(*kmsg.JoinGroupResponse)
	rebalanceTimeout := r.RebalanceTimeoutMillis
	if r.Version < 1 {
		rebalanceTimeout = r.SessionTimeoutMillis
	}
	protocols := make([]group.Protocol, len(r.Protocols))
	for i, p := range r.Protocols {
		protocols[i] = group.Protocol{Name: p.Name, Metadata: p.Metadata}
	}
	pending := b.Groups.Join(group.JoinRequest{
		Group: r.Group, MemberID: r.MemberID, InstanceID: orEmpty(r.InstanceID),
		ClientID: req.ClientID, ClientHost: clientHost(req.Conn.RemoteAddr),
		ProtocolType: r.ProtocolType, Protocols: protocols,
		SessionTimeout:    time.Duration(r.SessionTimeoutMillis) * time.Millisecond,
		RebalanceTimeout:  time.Duration(rebalanceTimeout) * time.Millisecond,
		Reason:            orEmpty(r.Reason),
		KnownMemberID:     r.Version >= 4,
		CanSkipAssignment: r.Version >= 9,
	})
	return whenDone(b, memberRef{r.Group, r.MemberID}, pending, func(j group.JoinResponse, err error) kmsg.Response {
		resp.MemberID, resp.Generation = r.MemberID, -1
		if j.MemberID != "" {
			resp.MemberID = j.MemberID
		}
		if err != nil {
			resp.ErrorCode = errorCode(err)
			return resp
		}
		resp.Generation, resp.LeaderID, resp.SkipAssignment = j.Generation, j.LeaderID, j.SkipAssignment
		resp.ProtocolType, resp.Protocol = &j.ProtocolType, &j.Protocol
		for _, m := range j.Members {
			resp.Members = append(resp.Members, kmsg.JoinGroupResponseMember{
				MemberID: m.MemberID, InstanceID: orNull(m.InstanceID), ProtocolMetadata: m.Metadata,
			})
		}
		return resp
	})
}
