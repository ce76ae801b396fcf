package main

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

const (
	rootKey   = "streamhouse"
	envPrefix = "STREAMHOUSE_"
)

// flagName is the spelling of a key as a flag: flush.max_linger, --flush-max-linger.
func flagName(key string) string { return strings.NewReplacer(".", "-", "_", "-").Replace(key) }

// envName is the spelling of a key in the environment: STREAMHOUSE_FLUSH_MAX_LINGER.
func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// addFlags adds a flag for every setting, and --config.
func addFlags(flags *pflag.FlagSet) {
	flags.String("config", "", "configuration file (YAML)")
	for _, s := range settingsTable(defaultSettings()) {
		f := flags.VarPF(s.value, flagName(s.key), "", s.doc)
		if s.value.Type() == kindBoolean {
			f.NoOptDefVal = "true"
		}
	}
}

// loaded is the effective configuration and where each value comes from.
type loaded struct {
	*Settings
	table   []setting
	sources map[string]string
}

// load reads the file, the environment and the flags, each over the one before.
func load(flags *pflag.FlagSet, environ []string) (*loaded, error) {
	l := &loaded{Settings: defaultSettings(), sources: map[string]string{}}
	l.table = settingsTable(l.Settings)
	known := make(map[string]bool, len(l.table)) // true is a tree
	byEnv, byFlag := map[string]string{}, map[string]string{}
	for _, s := range l.table {
		byEnv[envName(s.key)], byFlag[flagName(s.key)] = s.key, s.key
		_, known[s.key] = s.value.(tree)
	}

	name, _ := flags.GetString("config")
	if name != "" {
		layer, err := loadFile(name, known)
		if err != nil {
			return nil, err
		}
		if err := l.apply(layer, func(string) string { return "file " + name }); err != nil {
			return nil, err
		}
	}
	if err := checkEnvironment(environ, byEnv); err != nil {
		return nil, err
	}
	layer := koanf.New(".")
	err := layer.Load(env.Provider(".", env.Opt{
		Prefix: envPrefix, EnvironFunc: func() []string { return environ },
		TransformFunc: func(k, v string) (string, any) { return byEnv[k], v },
	}), nil)
	if err != nil {
		return nil, fmt.Errorf("read the environment: %w", err)
	}
	if err := l.apply(layer, func(key string) string { return "env " + envName(key) }); err != nil {
		return nil, err
	}
	layer = koanf.New(".")
	err = layer.Load(posflag.ProviderWithFlag(flags, ".", nil, func(f *pflag.Flag) (string, any) {
		if !f.Changed {
			return "", nil
		}
		return byFlag[f.Name], f.Value.String()
	}), nil)
	if err != nil {
		return nil, fmt.Errorf("read the flags: %w", err)
	}
	if err := l.apply(layer, func(key string) string { return "flag --" + flagName(key) }); err != nil {
		return nil, err
	}
	return l, l.resolve()
}

// ofKubernetes matches the variables that Kubernetes makes in every pod for a
// service whose name begins with streamhouse. No setting's name is like that.
var ofKubernetes = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// checkEnvironment refuses variables that are meant for the agent and mean
// nothing: started on other stores than those that were meant, it would seem to
// have lost everything.
func checkEnvironment(environ []string, byEnv map[string]string) error {
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, envPrefix) || byEnv[name] != "" || ofKubernetes.MatchString(name) {
			continue
		}
		return fmt.Errorf("environment variable %s is no setting: unset it, or correct its name; `streamhouse config --reference` lists the settings", name)
	}
	return nil
}

// loadFile reads a file's settings, which lie below the root key. known says of each
// key whether its value may be a tree.
func loadFile(name string, known map[string]bool) (*koanf.Koanf, error) {
	k := koanf.New(".")
	if err := k.Load(file.Provider(name), yaml.Parser()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("configuration file %s does not exist", name)
		}
		return nil, fmt.Errorf("configuration file %s: %w", name, err)
	}
	for _, key := range k.Keys() {
		inner, ok := strings.CutPrefix(key, rootKey+".")
		_, is := known[inner]
		trunk, _, _ := strings.Cut(inner, ".")
		switch {
		case key == rootKey && k.Get(key) == nil: // an empty root is no setting
		case key == rootKey:
			return nil, fmt.Errorf("configuration file %s: %q must hold settings, one a line", name, rootKey+":")
		case !ok:
			return nil, fmt.Errorf("configuration file %s: unknown key %q: settings lie below %q", name, key, rootKey+":")
		case !is && !known[trunk]:
			return nil, fmt.Errorf("configuration file %s: unknown key %q%s", name, key, suggest(inner, known))
		}
	}
	return k.Cut(rootKey), nil
}

// suggest names a known key that looks like the one that was meant.
func suggest(key string, known map[string]bool) string {
	last := key[strings.LastIndexByte(key, '.')+1:]
	var like []string
	for k := range known {
		if k[strings.LastIndexByte(k, '.')+1:] == last || strings.ReplaceAll(k, "_", "") == strings.ReplaceAll(strings.ToLower(key), "-", "") {
			like = append(like, k)
		}
	}
	if slices.Sort(like); len(like) > 0 {
		return fmt.Sprintf(", did you mean %q?", like[0])
	}
	return "; `streamhouse config --reference` lists them all"
}

// apply sets what a layer holds.
func (l *loaded) apply(layer *koanf.Koanf, source func(key string) string) error {
	for _, s := range l.table {
		if !layer.Exists(s.key) {
			continue
		}
		if err := set(s.value, layer.Get(s.key)); err != nil {
			return fmt.Errorf("%s: %s: %w", source(s.key), s.key, err)
		}
		l.sources[s.key] = source(s.key)
	}
	return nil
}

// set sets a value to what a layer has of it.
func set(v value, to any) error {
	switch to := to.(type) {
	case nil:
		return errors.New("has no value: give it one, or leave the key out")
	case map[string]any:
		if t, ok := v.(tree); ok {
			return t.SetTree(to)
		}
	case []any, time.Time:
	default:
		return v.Set(fmt.Sprint(to))
	}
	return errors.New("must be one value; quote it if it is text")
}
