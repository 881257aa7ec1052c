package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/agenticraft/node/audit/threat"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/egress"
	"github.com/agenticraft/node/sandbox/process"
)

// config is what a node runs with. Each value comes from a flag, else the
// environment, else the YAML file, else the default; sources says which.
type config struct {
	Data      string      // the node's data folder
	Genesis   string      // file of the cluster's first entry
	HTTP      string      // host:port of the HTTP door; loopback unless TLS is configured
	TLS       tlsSettings // of both doors
	PublicURL string      // by which others reach the HTTP door; "": as it listens
	GRPC      string      // host:port of a gRPC port of its own; "": only the HTTP door's
	Mesh      []string    // multiaddrs to listen on
	Peers     []string    // multiaddrs with /p2p/ID of the other members
	Runtimes  string      // folder of language runtimes, may be shared by nodes
	NoRun     bool        // take no executions
	Slots     int         // executions at the same time; 0: twice the cores
	LogLevel  string      // debug, info, warn, error

	Push          bool          // tell web hooks about tasks
	PushAllow     []string      // networks that may be told besides public addresses
	TaskRetention time.Duration // how long ended tasks are kept
	EvidenceBytes int64         // how much evidence is kept in all
	TaskLimit     int           // how many tasks are kept; ended ones beyond it are forgotten

	OIDCIssuer   string            // URL of the OpenID provider whose users may ask; empty: none
	OIDCAudience string            // that their tokens must name
	OIDCClient   string            // the client that `agenticraft login` is to the provider; empty: the audience
	OIDCScopes   []string          // that it asks for
	OIDCTenant   string            // to which they belong
	OIDCGroups   string            // the claim that holds their groups
	OIDCRoles    map[string]string // group -> role
	Thresholds   threat.Config
	thresholds   map[string]string // as they were given

	Sandbox    string         // backend for requests that name none
	MemoryMB   int            // default memory limit
	CPUPercent int            // default CPU limit, of one core
	Timeout    time.Duration  // default wall limit
	Warm       int            // jails that wait with an interpreter for a run each
	Egress     []netip.Prefix // private ranges that programs may reach
	EgressConn int            // connections of one run in all
	EgressOpen int            // connections of one run at the same time
	EgressMB   int            // of one run both ways together, in MiB
	Docker     string         // the engine's socket; "off": no sandbox docker
	NATS       natsSettings
	CardKeys   []string // files of further keys that sign the agent card
	SignedOnly bool     // take no message that its sender did not sign
	Console    bool     // the web console is served

	DockerImages map[string]string // language -> image of the engine, instead of our own
	DockerWarm   int               // containers that wait with an interpreter for a run each
	sources      map[string]string
}

// meshNone as the only address means that the node listens for no other one.
const meshNone = "none"

func (c *config) dialOnly() bool { return len(c.Mesh) == 1 && c.Mesh[0] == meshNone }

// setting is one value of the configuration.
type setting struct {
	key  string // in the YAML file, and as a flag with - for _
	env  string
	text string // default
	help string
	set  func(c *config, text string) error
	get  func(c *config) string
}

func settingsTable() []setting {
	str := func(at func(*config) *string) (func(*config, string) error, func(*config) string) {
		return func(c *config, s string) error { *at(c) = s; return nil }, func(c *config) string { return *at(c) }
	}
	num := func(at func(*config) *int, least int) (func(*config, string) error, func(*config) string) {
		return func(c *config, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < least {
				return fmt.Errorf("%q is not a whole number of at least %d", s, least)
			}
			*at(c) = n
			return nil
		}, func(c *config) string { return strconv.Itoa(*at(c)) }
	}
	list := func(at func(*config) *[]string) (func(*config, string) error, func(*config) string) {
		return func(c *config, s string) error {
			*at(c) = strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == '\n' })
			return nil
		}, func(c *config) string { return strings.Join(*at(c), ",") }
	}
	flag := func(at func(*config) *bool) (func(*config, string) error, func(*config) string) {
		return func(c *config, s string) (err error) {
			if *at(c), err = strconv.ParseBool(s); err != nil {
				err = fmt.Errorf("%q is neither true nor false", s)
			}
			return err
		}, func(c *config) string { return strconv.FormatBool(*at(c)) }
	}
	entry := func(key, env, def, help string, set func(*config, string) error, get func(*config) string) setting {
		return setting{key, env, def, help, set, get}
	}
	of := func(set func(*config, string) error, get func(*config) string) func(key, env, def, help string) setting {
		return func(key, env, def, help string) setting { return entry(key, env, def, help, set, get) }
	}
	return append(slices.Concat(natsTable(), tlsTable()), []setting{
		of(str(func(c *config) *string { return &c.Data }))("data", "AGENTICRAFT_DATA", "", "the node's data folder"),
		of(str(func(c *config) *string { return &c.Genesis }))("genesis", "AGENTICRAFT_GENESIS", "", "file of the cluster's first entry (default DATA/genesis.json)"),
		of(str(func(c *config) *string { return &c.HTTP }))("http", "AGENTICRAFT_HTTP", "127.0.0.1:8420", "host:port of the HTTP door"),
		of(str(func(c *config) *string { return &c.GRPC }))("grpc_listen", "AGENTICRAFT_GRPC_LISTEN", "", "host:port of a port for gRPC alone, faster than the HTTP door's"),
		of(list(func(c *config) *[]string { return &c.Mesh }))("mesh", "AGENTICRAFT_MESH", "/ip4/127.0.0.1/tcp/8520,/ip4/127.0.0.1/udp/8520/quic-v1", "multiaddrs to listen on, comma-separated, or none: only dial out"),
		of(list(func(c *config) *[]string { return &c.Peers }))("peers", "AGENTICRAFT_PEERS", "", "multiaddrs of the other members, each ending in /p2p/ID"),
		of(list(func(c *config) *[]string { return &c.CardKeys }))("card_keys", "AGENTICRAFT_CARD_KEYS", "", "files of further Ed25519 keys that sign the agent card, comma-separated"),
		of(str(func(c *config) *string { return &c.Runtimes }))("runtimes", "AGENTICRAFT_RUNTIMES", "", "folder of language runtimes (default DATA/runtimes)"),
		of(flag(func(c *config) *bool { return &c.Console }))("console", "AGENTICRAFT_CONSOLE", "true", "serve the web console at /ui/; it needs no credential itself, and shows nothing without one"),
		of(flag(func(c *config) *bool { return &c.SignedOnly }))("signed_only", "AGENTICRAFT_SIGNED_ONLY", "false", "take no request to run code that its sender did not sign himself, and say so in the agent card"),
		of(flag(func(c *config) *bool { return &c.NoRun }))("no_run", "AGENTICRAFT_NO_RUN", "false", "take no executions"),
		of(flag(func(c *config) *bool { return &c.Push }))("push", "AGENTICRAFT_PUSH", "true", "tell web hooks about tasks, where their owners ask for it"),
		of(list(func(c *config) *[]string { return &c.PushAllow }))("push_allow", "AGENTICRAFT_PUSH_ALLOW", "", "networks that web hooks may be in besides public addresses, comma-separated"),
		of(func(c *config, s string) error {
			d, err := time.ParseDuration(s)
			if err != nil || d < time.Minute {
				return fmt.Errorf("%q is not a duration of at least 1m, such as 720h", s)
			}
			c.TaskRetention = d
			return nil
		}, func(c *config) string { return c.TaskRetention.String() })("task_retention", "AGENTICRAFT_TASK_RETENTION", "720h", "how long ended tasks are kept"),
		of(num(func(c *config) *int { return &c.TaskLimit }, 1))("task_limit", "AGENTICRAFT_TASK_LIMIT", "100000", "how many tasks are kept; the oldest ended ones beyond it are forgotten"),
		of(func(c *config, s string) error {
			n, err := strconv.ParseInt(s, 10, 32)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is not a number of MiB from 1 on", s)
			}
			c.EvidenceBytes = n << 20
			return nil
		}, func(c *config) string { return strconv.FormatInt(c.EvidenceBytes>>20, 10) })("evidence_max_mb", "AGENTICRAFT_EVIDENCE_MAX_MB", "4096", "how much evidence (code, inputs, outputs) is kept in all, in MiB; the oldest is erased beyond it"),
		of(str(func(c *config) *string { return &c.OIDCIssuer }))("oidc_issuer", "AGENTICRAFT_OIDC_ISSUER", "", "URL of the OpenID provider whose users may ask"),
		of(str(func(c *config) *string { return &c.OIDCAudience }))("oidc_audience", "AGENTICRAFT_OIDC_AUDIENCE", "", "audience that their tokens must name"),
		of(str(func(c *config) *string { return &c.OIDCClient }))("oidc_client", "AGENTICRAFT_OIDC_CLIENT", "", "client ID that agenticraft login uses there (default: oidc_audience)"),
		of(list(func(c *config) *[]string { return &c.OIDCScopes }))("oidc_scopes", "AGENTICRAFT_OIDC_SCOPES", "openid,offline_access", "scopes that agenticraft login asks for"),
		of(str(func(c *config) *string { return &c.OIDCTenant }))("oidc_tenant", "AGENTICRAFT_OIDC_TENANT", "default", "tenant to which its users belong"),
		of(str(func(c *config) *string { return &c.OIDCGroups }))("oidc_groups", "AGENTICRAFT_OIDC_GROUPS", "groups", "claim that holds their groups"),
		of(func(c *config, s string) (err error) {
			c.OIDCRoles, err = pairs(s, "GROUP=ROLE")
			return err
		}, func(c *config) string { return pairsText(c.OIDCRoles) })("oidc_roles", "AGENTICRAFT_OIDC_ROLES", "", "roles of their groups: GROUP=ROLE,…"),
		of(func(c *config, s string) error {
			given, err := pairs(s, "NAME=VALUE")
			c.Thresholds, c.thresholds = threat.Config{}, given
			for _, name := range sortedKeys(given) {
				err = errors.Join(err, c.Thresholds.Set(name, given[name]))
			}
			return err
		}, func(c *config) string { return pairsText(c.thresholds) })("alert_thresholds", "AGENTICRAFT_ALERT_THRESHOLDS", "", "when the rules that read the log speak: NAME=VALUE,…"),
		of(num(func(c *config) *int { return &c.Slots }, 0))("slots", "AGENTICRAFT_SLOTS", "0", "executions at the same time (0: twice the cores)"),
		of(func(c *config, s string) error {
			if _, err := logLevel(s); err != nil {
				return err
			}
			c.LogLevel = s
			return nil
		}, func(c *config) string { return c.LogLevel })("log_level", "AGENTICRAFT_LOG_LEVEL", "info", "debug, info, warn or error"),
		of(str(func(c *config) *string { return &c.Sandbox }))("sandbox", "AGENTICRAFT_DEFAULT_SANDBOX", "auto", "backend for requests that name none"),
		of(num(func(c *config) *int { return &c.MemoryMB }, 1))("sandbox_memory_mb", "AGENTICRAFT_SANDBOX_MEMORY_MB", "256", "default memory limit in MiB"),
		of(num(func(c *config) *int { return &c.CPUPercent }, 1))("sandbox_cpu_percent", "AGENTICRAFT_SANDBOX_CPU_PERCENT", "100", "default CPU limit in percent of one core"),
		of(func(c *config, s string) error {
			n, err := strconv.ParseFloat(s, 64)
			if err != nil || n <= 0 || n > 86400 {
				return fmt.Errorf("%q is not a number of seconds from 0 to 86400", s)
			}
			c.Timeout = time.Duration(n * float64(time.Second))
			return nil
		}, func(c *config) string { return strconv.FormatFloat(c.Timeout.Seconds(), 'f', -1, 64) })("sandbox_timeout", "AGENTICRAFT_SANDBOX_TIMEOUT", "30", "default wall limit in seconds"),
		of(func(c *config, s string) error {
			var err error
			c.Egress, err = prefixes(s)
			return err
		}, func(c *config) string { return joined(c.Egress) })("egress_allow", "AGENTICRAFT_EGRESS_ALLOW", "", "private ranges (CIDR,…) that programs may reach although they are private, local or this cluster's"),
		of(num(func(c *config) *int { return &c.EgressConn }, 1))("egress_connections", "AGENTICRAFT_EGRESS_CONNECTIONS", strconv.Itoa(egress.DefaultConnections), "connections that one run may make, where policy lets it reach a network"),
		of(num(func(c *config) *int { return &c.EgressOpen }, 1))("egress_open", "AGENTICRAFT_EGRESS_OPEN", strconv.Itoa(egress.DefaultOpen), "connections of one run at the same time"),
		of(num(func(c *config) *int { return &c.EgressMB }, 1))("egress_max_mb", "AGENTICRAFT_EGRESS_MAX_MB", strconv.Itoa(egress.DefaultBytes>>20), "what one run may send and receive together, in MiB"),
		of(func(c *config, s string) error {
			if s != dockerOff && !filepath.IsAbs(s) {
				return fmt.Errorf("%q is neither an absolute path nor %q", s, dockerOff)
			}
			c.Docker = s
			return nil
		}, func(c *config) string { return c.Docker })("docker_socket", "AGENTICRAFT_DOCKER_SOCKET", defaultDocker, "socket of the Docker engine for the sandbox docker, or off"),
		of(func(c *config, s string) error {
			var err error
			c.DockerImages, err = pairs(s, "LANGUAGE=IMAGE")
			return err
		}, func(c *config) string { return pairsText(c.DockerImages) })("docker_images", "AGENTICRAFT_DOCKER_IMAGES", "", "images to use in the sandbox docker instead of the node's runtimes: LANGUAGE=IMAGE,…"),
		of(func(c *config, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 || n > maxDockerWarm {
				return fmt.Errorf("%q is not a whole number from 0 to %d", s, maxDockerWarm)
			}
			c.DockerWarm = n
			return nil
		}, func(c *config) string { return strconv.Itoa(c.DockerWarm) })("docker_warm", "AGENTICRAFT_DOCKER_WARM", "1", "containers that wait with a started Python for one run each, once the sandbox docker is used, about 20 MiB apiece; unless it is 0, one with JavaScript too"),
		of(func(c *config, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 || n > process.MaxWarm {
				return fmt.Errorf("%q is not a whole number from 0 to %d", s, process.MaxWarm)
			}
			c.Warm = n
			return nil
		}, func(c *config) string { return strconv.Itoa(c.Warm) })("sandbox_warm", "AGENTICRAFT_SANDBOX_WARM", "1", "jails that wait with a started Python for one run each; about 10 MiB apiece"),
	}...)
}

// loadConfig gathers the configuration of a node that is to run; every fault of it
// is reported at once.
func loadConfig(file string, flags map[string]string, env func(string) string) (*config, error) {
	c, err := readConfig(file, flags, env)
	if err == nil && c.Data == "" {
		return nil, usage("configuration: data: not set; give --data DIR or a configuration file")
	}
	return c, err
}

// readConfig gathers the configuration, which may lack a folder.
func readConfig(file string, flags map[string]string, env func(string) string) (*config, error) {
	values := map[string]any{}
	if file != "" {
		text, err := readSmall(file, maxConfigFile)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, failed("no configuration file %s", file)
		}
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		if err := yaml.Unmarshal(text, &values); err != nil {
			return nil, failed("%s is not YAML: %v", file, err)
		}
	}
	c := &config{sources: map[string]string{}}
	var faults []error
	for _, s := range settingsTable() {
		text, source := s.text, "default"
		if v, ok := values[s.key]; ok {
			text, source = yamlText(v), "file "+file
			delete(values, s.key)
		}
		if v := env(s.env); v != "" {
			text, source = v, "environment "+s.env
		}
		if v, ok := flags[s.key]; ok {
			text, source = v, "flag --"+strings.ReplaceAll(s.key, "_", "-")
		}
		c.sources[s.key] = source
		if err := s.set(c, text); err != nil {
			faults = append(faults, fmt.Errorf("%s (%s): %w", s.key, source, err))
		}
	}
	for _, key := range sortedKeys(values) {
		faults = append(faults, fmt.Errorf("%s: unknown setting %q", file, key))
	}
	if err := c.TLS.check(); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return nil, usage("configuration: %v", errors.Join(faults...))
	}
	if c.Genesis == "" && c.Data != "" {
		c.Genesis = filepath.Join(c.Data, "genesis.json")
	}
	if c.Runtimes == "" && c.Data != "" {
		c.Runtimes = filepath.Join(c.Data, "runtimes")
	}
	return c, nil
}

func yamlText(v any) string {
	if items, ok := v.([]any); ok {
		texts := make([]string, len(items))
		for i, item := range items {
			texts[i] = fmt.Sprint(item)
		}
		return strings.Join(texts, ",")
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// limits are the defaults of a run.
func (c *config) limits() sandbox.Limits {
	return sandbox.Limits{
		Memory:     int64(c.MemoryMB) << 20,
		CPUPercent: c.CPUPercent,
		Wall:       c.Timeout,
		Output:     1 << 20,
		FileSize:   16 << 20,
		Files:      1024,
		Processes:  32,
		Result:     1 << 20,
	}
}

// login is how users log in at the OpenID provider, nil without one.
func (c *config) login() *httpdoor.Login {
	if c.OIDCIssuer == "" {
		return nil
	}
	return &httpdoor.Login{Issuer: c.OIDCIssuer, ClientID: or(c.OIDCClient, c.OIDCAudience), Scopes: c.OIDCScopes}
}

// peers are the other members and their addresses.
func (c *config) peers() (map[identity.ID][]string, error) {
	out, err := parsePeers(c.Peers)
	if err != nil {
		return nil, usage("peers: %v", err)
	}
	return out, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// shown is the effective configuration with the source of each value.
func (c *config) shown() []shownSetting {
	var out []shownSetting
	for _, s := range settingsTable() {
		out = append(out, shownSetting{s.key, s.get(c), c.sources[s.key]})
	}
	return out
}

type shownSetting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Source string `json:"source"`
}

// envName is the environment variable of a setting.
func envName(key string) string { return "AGENTICRAFT_" + strings.ToUpper(key) }

// pairs reads A=B,…; form says what the halves are. A name may hold "=".
func pairs(s, form string) (map[string]string, error) {
	out := map[string]string{}
	for _, pair := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == '\n' }) {
		name, value, ok := cutLast(pair, "=")
		if !ok || name == "" || value == "" {
			return nil, fmt.Errorf("%q is not %s", pair, form)
		}
		out[name] = value
	}
	return out, nil
}

func pairsText(m map[string]string) string {
	var out []string
	for _, name := range sortedKeys(m) {
		out = append(out, name+"="+m[name])
	}
	return strings.Join(out, ",")
}
