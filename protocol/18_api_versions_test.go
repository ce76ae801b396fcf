package protocol

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func apiVersions(version int16) *kmsg.ApiVersionsRequest {
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = version, "apache-kafka-java", "4.1.0"
	return req
}

func decodeApiVersions(t *testing.T, version int16, b []byte) *kmsg.ApiVersionsResponse {
	t.Helper()
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = version
	if err := resp.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestApiVersionsIsTheRouteTable(t *testing.T) {
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{0: respond, keyHeartbeat: respond}, func(t *testing.T, f *fixture) {
		c := f.dial()
		for v := int16(0); v <= 5; v++ {
			c.send(int32(v), apiVersions(v))
			resp := decodeApiVersions(t, v, c.want(int32(v)))
			got := map[int16][2]int16{}
			for _, k := range resp.ApiKeys {
				got[k.ApiKey] = [2]int16{k.MinVersion, k.MaxVersion}
			}
			want := map[int16][2]int16{0: {0, 13}, keyHeartbeat: {0, 4}, keyApiVersions: {0, 5}}
			if diff := cmp.Diff(want, got); diff != "" || resp.ErrorCode != 0 {
				t.Errorf("v%d: error %d, keys:\n%s", v, resp.ErrorCode, diff)
			}
			if len(resp.SupportedFeatures)+len(resp.FinalizedFeatures) > 0 || resp.FinalizedFeaturesEpoch != -1 {
				t.Errorf("v%d has features", v)
			}
		}
	})
}

func TestApiVersionsFallsBackToV0(t *testing.T) {
	inBubble(t, ServerConfig{}, nil, func(t *testing.T, f *fixture) {
		c := f.dial()
		for i, version := range []int16{6, 99, 32767, -1} {
			id := int32(i)
			// What follows the correlation id is of a version that nobody here knows.
			c.out <- []byte{0, 0, 0, 12, 0, 18, byte(version >> 8), byte(version), 0, 0, 0, byte(id), 0xde, 0xad, 0xbe, 0xef}
			resp := decodeApiVersions(t, 0, c.want(id))
			want := []kmsg.ApiVersionsResponseApiKey{{ApiKey: 18, MinVersion: 0, MaxVersion: 5}}
			if diff := cmp.Diff(want, resp.ApiKeys, cmp.AllowUnexported(kmsg.Tags{})); diff != "" || resp.ErrorCode != kerr.UnsupportedVersion.Code {
				t.Errorf("v%d: error %d, keys:\n%s", version, resp.ErrorCode, diff)
			}
		}
		c.send(9, apiVersions(5)) // the connection goes on
		c.want(9)
	})
}

func TestApiVersionsChecksTheClient(t *testing.T) {
	id := "cluster"
	tests := []struct {
		version       int16
		name, release string
		cluster       *string
		node          int32
		code          int16
	}{
		{version: 3, name: "librdkafka", release: "2.11.1", node: -1},
		{version: 3, name: "a", release: "1", node: -1},
		{version: 3, name: "", release: "1", node: -1, code: kerr.InvalidRequest.Code},
		{version: 3, name: "a", release: "", node: -1, code: kerr.InvalidRequest.Code},
		{version: 3, name: "-a", release: "1", node: -1, code: kerr.InvalidRequest.Code},
		{version: 4, name: "a", release: "1.", node: -1, code: kerr.InvalidRequest.Code},
		{version: 4, name: "a b", release: "1", node: -1, code: kerr.InvalidRequest.Code},
		{version: 4, name: "a\n", release: "1", node: -1, code: kerr.InvalidRequest.Code},
		{version: 2, name: "", release: "", node: -1},
		{version: 5, name: "a", release: "1", node: -1},
		{version: 5, name: "a", release: "1", cluster: &id, node: 3},
		{version: 5, name: "a", release: "1", cluster: &id, node: -1, code: kerr.InvalidRequest.Code},
		{version: 5, name: "a", release: "1", node: 3, code: kerr.InvalidRequest.Code},
	}
	inBubble(t, ServerConfig{}, nil, func(t *testing.T, f *fixture) {
		c := f.dial()
		for i, test := range tests {
			req := apiVersions(test.version)
			req.ClientSoftwareName, req.ClientSoftwareVersion = test.name, test.release
			req.ClusterID, req.NodeID = test.cluster, test.node
			c.send(int32(i), req)
			resp := decodeApiVersions(t, test.version, c.want(int32(i)))
			if resp.ErrorCode != test.code || (len(resp.ApiKeys) == 0) != (test.code != 0) {
				t.Errorf("%+v: error %d, %d keys", test, resp.ErrorCode, len(resp.ApiKeys))
			}
		}
	})
}

func TestLaterRequestsKnowTheClientSoftware(t *testing.T) {
	var seen []ConnInfo
	handle := func(_ context.Context, req *Request) Reply {
		seen = append(seen, *req.Conn)
		return Now(req.Body.ResponseKind())
	}
	inBubble(t, ServerConfig{}, map[int16]HandlerFunc{keyHeartbeat: handle}, func(t *testing.T, f *fixture) {
		c := f.dial()
		c.send(1, heartbeat("x"), apiVersions(4), heartbeat("x"))
		c.want(1, 2, 3)
		if seen[0].ClientSoftwareName != "" || seen[1].ClientSoftwareName != "apache-kafka-java" || seen[1].ClientSoftwareVersion != "4.1.0" {
			t.Errorf("%+v", seen)
		}
	})
}

func TestApiVersionsHook(t *testing.T) {
	hook := func(_ *kmsg.ApiVersionsRequest, resp *kmsg.ApiVersionsResponse) { resp.FinalizedFeaturesEpoch = 7 }
	r, err := NewRouter(nil, WithApiVersionsHook(hook))
	if err != nil {
		t.Fatal(err)
	}
	reply := r.apiVersions(t.Context(), &Request{Body: apiVersions(3), Conn: &ConnInfo{}})
	if got := reply.resp.(*kmsg.ApiVersionsResponse).FinalizedFeaturesEpoch; got != 7 {
		t.Errorf("epoch %d", got)
	}
}

func TestRouterRefusesAWrongTable(t *testing.T) {
	tests := map[string][]Route{
		"twice":              {{Key: 12, Handle: respond}, {Key: 12, Handle: respond}},
		"ApiVersions":        {{Key: 18, Handle: respond}},
		"no such key":        {{Key: 1000, Handle: respond}},
		"a negative key":     {{Key: -1, Handle: respond}},
		"newer than kmsg":    {{Key: 12, MaxVersion: 5, Handle: respond}},
		"a negative minimum": {{Key: 12, MinVersion: -1, Handle: respond}},
		"an empty range":     {{Key: 12, MinVersion: 2, MaxVersion: 1, Handle: respond}},
		"no handler":         {{Key: 12}},
	}
	for name, routes := range tests {
		if _, err := NewRouter(routes); !errors.Is(err, ErrRoute) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
