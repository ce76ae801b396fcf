package main

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// The examples below deploy/examples, as far as they can be judged without the
// programs that they are for; compat-tests runs their agents.

// exampleDirs are the folders of deploy/examples.
func exampleDirs(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("../../deploy/examples/*/compose.yaml")
	if err != nil || len(dirs) < 4 {
		t.Fatalf("examples: %v, %v", dirs, err)
	}
	for i := range dirs {
		dirs[i] = filepath.Dir(dirs[i])
	}
	return dirs
}

// loadExample loads a configuration file's content as an agent with that
// environment does.
func loadExample(t *testing.T, content string, environ map[string]string) *loaded {
	t.Helper()
	file := filepath.Join(t.TempDir(), "streamhouse.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addFlags(flags)
	if err := flags.Set("config", file); err != nil {
		t.Fatal(err)
	}
	var env []string
	for _, name := range slices.Sorted(maps.Keys(environ)) {
		if strings.HasPrefix(name, envPrefix) {
			env = append(env, name+"="+environ[name])
		}
	}
	l, err := load(flags, env)
	if err != nil {
		t.Fatalf("%v: %v", env, err)
	}
	if !l.MultiAgent {
		t.Error("not for a cluster")
	}
	return l
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestComposeExamples checks that each service that is an agent starts with a
// configuration that an agent takes, on ports and stores that are there.
func TestComposeExamples(t *testing.T) {
	type service struct {
		Command     []string          `yaml:"command"`
		Environment map[string]string `yaml:"environment"`
		Volumes     []string          `yaml:"volumes"`
		Ports       []string          `yaml:"ports"`
		NetworkMode string            `yaml:"network_mode"`
		Build       struct {
			Context    string `yaml:"context"`
			Dockerfile string `yaml:"dockerfile"`
			Target     string `yaml:"target"`
		} `yaml:"build"`
	}
	for _, dir := range exampleDirs(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var compose struct {
				Services map[string]service `yaml:"services"`
			}
			if err := yaml.Unmarshal([]byte(readFile(t, filepath.Join(dir, "compose.yaml"))), &compose); err != nil {
				t.Fatal(err)
			}
			agents, published := 0, map[string]string{}
			listeners, watching := map[string]string{}, map[[2]string]map[string]int{}
			for name, s := range compose.Services {
				if s.Build.Target != "" {
					dockerfile := filepath.Join(dir, s.Build.Context, s.Build.Dockerfile)
					if !strings.Contains(readFile(t, dockerfile), " AS "+s.Build.Target+"\n") {
						t.Errorf("%s: %s has no target %s", name, dockerfile, s.Build.Target)
					}
				}
				if s.Build.Target != "agent" {
					continue
				}
				agents++
				config, mount, _ := strings.Cut(s.Volumes[0], ":")
				if want := []string{"agent", "--config", strings.TrimSuffix(mount, ":ro")}; !slices.Equal(s.Command, want) {
					t.Errorf("%s: command %v, not %v", name, s.Command, want)
				}
				l := loadExample(t, readFile(t, filepath.Join(dir, config)), s.Environment)
				network, shared := strings.CutPrefix(s.NetworkMode, "service:")
				if !shared {
					network = name
				}
				ports := compose.Services[network].Ports
				_, port, _ := strings.Cut(l.AdvertisedAddress, ":")
				if _, bound, _ := strings.Cut(l.Address, ":"); bound != port || !slices.Contains(ports, "127.0.0.1:"+port+":"+port) {
					t.Errorf("%s: clients are told of port %s, which is not published, or not listened on: %v", name, port, ports)
				}
				for _, address := range []string{l.Address, l.AdminAddress, l.Peer.Address} {
					_, port, _ := strings.Cut(address, ":")
					if other := listeners[network+":"+port]; other != "" {
						t.Errorf("%s and %s both listen on port %s of the network of %s", name, other, port, network)
					}
					listeners[network+":"+port] = name
				}
				group := [2]string{l.Cluster, l.AgentGroup}
				if watching[group] == nil {
					watching[group] = map[string]int{}
				}
				watching[group][network]++
				if other := published[port]; other != "" {
					t.Errorf("%s and %s publish port %s", name, other, port)
				}
				published[port] = name
				for _, url := range []string{l.MetadataURL, l.ObjectURL} {
					host := regexp.MustCompile(`(?:@|endpoint=http://)([a-z0-9-]+)`).FindStringSubmatch(url)
					if host == nil || compose.Services[host[1]].Command == nil && compose.Services[host[1]].Environment == nil {
						t.Errorf("%s: no service is the host of %s", name, url)
					}
				}
			}
			if agents < 2 {
				t.Errorf("%d agents", agents)
			}
			for group, networks := range watching {
				// They are told of each other on 127.0.0.1, where only those of one network
				// reach each other. Of two, neither believes that it is itself at fault.
				if len(networks) > 2 {
					t.Errorf("agents of %v are on %d networks and do not reach each other", group, len(networks))
				}
			}
		})
	}
}

// manifest is what is looked at of an object of Kubernetes.
type manifest struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Data map[string]string `yaml:"data"`
	Spec struct {
		ServiceName string    `yaml:"serviceName"`
		Selector    yaml.Node `yaml:"selector"`
		Ports       []struct {
			Name       string `yaml:"name"`
			Port       int    `yaml:"port"`
			TargetPort string `yaml:"targetPort"`
		} `yaml:"ports"`
		Template struct {
			Metadata struct {
				Labels map[string]string `yaml:"labels"`
			} `yaml:"metadata"`
			Spec struct {
				Containers []struct {
					Args []string `yaml:"args"`
					Env  []struct {
						Name      string    `yaml:"name"`
						Value     string    `yaml:"value"`
						ValueFrom yaml.Node `yaml:"valueFrom"`
					} `yaml:"env"`
					Ports []struct {
						Name string `yaml:"name"`
						Port int    `yaml:"containerPort"`
					} `yaml:"ports"`
					VolumeMounts []struct {
						Name      string `yaml:"name"`
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				} `yaml:"containers"`
				Volumes []struct {
					Name      string `yaml:"name"`
					ConfigMap struct {
						Name string `yaml:"name"`
					} `yaml:"configMap"`
				} `yaml:"volumes"`
			} `yaml:"spec"`
		} `yaml:"template"`
	} `yaml:"spec"`
}

// TestKubernetesExamples renders what each pod of the manifests is started with, and
// has an agent take it. Names in the manifests must be those of things in them.
func TestKubernetesExamples(t *testing.T) {
	for _, dir := range exampleDirs(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			objects := map[string]manifest{} // by kind and name
			in := yaml.NewDecoder(bytes.NewReader([]byte(readFile(t, filepath.Join(dir, "kubernetes.yaml")))))
			for {
				var m manifest
				if err := in.Decode(&m); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				if key := m.Kind + " " + m.Metadata.Name; m.Kind != "" {
					if _, twice := objects[key]; twice {
						t.Errorf("%s is there twice", key)
					}
					objects[key] = m
				}
			}
			sets := 0
			for key, m := range objects {
				if m.Kind == "StatefulSet" {
					sets++
					checkPods(t, key, m, objects)
				}
			}
			if sets == 0 {
				t.Error("no agents")
			}
		})
	}
}

func checkPods(t *testing.T, key string, m manifest, objects map[string]manifest) {
	t.Helper()
	pod := m.Spec.Template.Spec
	c := pod.Containers[0]
	environ := map[string]string{"POD_NAME": m.Metadata.Name + "-0"}
	for _, e := range c.Env {
		switch {
		case e.Name == "STREAMHOUSE_METADATA_URL": // of the secret
			e.Value = "postgres://streamhouse:secret@db.example.com/streamhouse"
		case e.Name == "STREAMHOUSE_OBJECT_URL":
			e.Value = "s3://my-bucket/streamhouse?region=eu-central-1"
		case e.Name == "POD_NAME":
			continue
		}
		environ[e.Name] = os.Expand(strings.NewReplacer("$(", "${", ")", "}").Replace(e.Value), func(name string) string { return environ[name] })
	}
	configs := objects["ConfigMap "+pod.Volumes[0].ConfigMap.Name]
	config, ok := configs.Data[filepath.Base(c.Args[2])]
	if !ok || c.Args[1] != "--config" || filepath.Dir(c.Args[2]) != c.VolumeMounts[0].MountPath || c.VolumeMounts[0].Name != pod.Volumes[0].Name {
		t.Fatalf("%s: %v is no file of its volume", key, c.Args)
	}
	l := loadExample(t, config, environ)

	ports := map[string]int{}
	for _, p := range c.Ports {
		ports[p.Name] = p.Port
	}
	headless := objects["Service "+m.Spec.ServiceName]
	if want := environ["POD_NAME"] + "." + headless.Metadata.Name + ":9092"; l.AdvertisedAddress != want || ports["kafka"] != 9092 {
		t.Errorf("%s: clients are told of %s, not %s", key, l.AdvertisedAddress, want)
	}
	if want := environ["POD_NAME"] + "." + headless.Metadata.Name + ":9645"; l.Peer.AdvertisedAddress != want || ports["peer"] != 9645 {
		t.Errorf("%s: other agents are told of %s, not %s", key, l.Peer.AdvertisedAddress, want)
	}
	app := m.Spec.Template.Metadata.Labels["app"]
	for _, service := range []string{headless.Metadata.Name, app + "-bootstrap"} {
		s, ok := objects["Service "+service]
		var selector map[string]string
		if err := s.Spec.Selector.Decode(&selector); !ok || err != nil || selector["app"] != app {
			t.Errorf("%s: service %q does not select its pods: %v", key, service, selector)
		}
		for _, p := range s.Spec.Ports {
			if target := p.Name; ports[target] != p.Port {
				t.Errorf("%s: service %s has port %s %d, the pods %v", key, service, p.Name, p.Port, ports)
			}
		}
	}
}
