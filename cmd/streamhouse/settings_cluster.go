package main

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/streamhouse/streamhouse/metadata"
	"github.com/streamhouse/streamhouse/segment"
	"github.com/streamhouse/streamhouse/segment/objstore"
)

// A virtual cluster has its own place in stores that it shares with others: all that
// tells it from a cluster of its own is the setting.

const clusterDoc = "Name of a virtual cluster, which shares a database and a bucket with others and has nothing in common with them: its tables are in a PostgreSQL schema of its own, streamhouse_<name>, which is made if it is missing, its objects below <object_url>/<name>, and its Kafka cluster id is its own. SQLite has a file for each. 1 to 40 characters of a-z, 0-9, '_' and '-'; not segments or check. Without it, everything is where metadata_url and object_url say."

var clusterName = regexp.MustCompile(`^[a-z0-9_-]{1,40}$`)

// foldersOfObjects are what a cluster without a name has below object_url: a cluster
// called like one of them would have its objects among the other's.
var foldersOfObjects = []string{strings.TrimSuffix(segment.KeyPrefix, "/"), objstore.CheckFolder}

func checkClusterName(name string) error {
	switch {
	case name != "" && !clusterName.MatchString(name):
		return fmt.Errorf("cluster %q: must be 1 to 40 characters of a-z, 0-9, '_' and '-'", name)
	case slices.Contains(foldersOfObjects, name):
		return fmt.Errorf("cluster %q: a cluster without a name has its objects in a folder that is called so: take another name", name)
	}
	return nil
}

func (s *Settings) checkCluster() error {
	if !metadata.LegalAgentGroup(s.AgentGroup) {
		return fmt.Errorf("agent_group %q: must be up to %d characters of a-z, A-Z, 0-9, '.', '_' and '-'",
			s.AgentGroup, metadata.MaxAgentGroupLength)
	}
	return checkClusterName(s.Cluster)
}

// schema is where the cluster's tables are in PostgreSQL; "" is where metadata_url says.
func (s *Settings) schema() string {
	if s.Cluster == "" {
		return ""
	}
	return "streamhouse_" + s.Cluster
}

// metadataFile is the SQLite database of the cluster.
func (s *Settings) metadataFile() string {
	if s.Cluster == "" {
		return s.MetadataURL
	}
	extension := filepath.Ext(s.MetadataURL)
	return strings.TrimSuffix(s.MetadataURL, extension) + "-" + s.Cluster + extension
}

// metadataPlace says where the cluster's metadata are, without secrets.
func (s *Settings) metadataPlace() string {
	switch {
	case !s.postgres():
		return redact(s.metadataFile())
	case s.Cluster != "":
		return redact(s.MetadataURL) + ", schema " + s.schema()
	}
	return redact(s.MetadataURL)
}

// clusterObjects is the URL of the cluster's own part of the object store.
func (s *Settings) clusterObjects() string { return objectsOf(s.ObjectURL, s.Cluster) }

// objectsOf is where a cluster's objects are in the store at a URL, which may be
// malformed: its driver says so.
func objectsOf(rawURL, cluster string) string {
	u, err := url.Parse(rawURL)
	if cluster == "" || err != nil {
		return rawURL
	}
	return u.JoinPath(cluster).String()
}
