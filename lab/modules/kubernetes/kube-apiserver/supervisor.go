package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

const (
	agentRole     = "k3s:agent"
	bootstrappers = "system:bootstrappers"
)

// login is a line of K3s's cred/passwd: password, name, uid, roles.
type login struct {
	password [sha256.Size]byte
	roles    []string
}

// supervisor answers what K3s's own answers to agents (k3s-io/k3s pkg/server/handlers/router.go and
// pkg/server/auth): /cacerts and /ping to anybody, /v1-k3s/config to whom the cluster knows as an
// agent. As with K3s passwords are read once: a new one holds from the next start on.
type supervisor struct {
	ca      []byte
	config  string // a file that is there once agents may join
	logins  map[string]login
	cluster authenticator.Request
}

func newSupervisor(serverDir string, cluster authenticator.Request) (*supervisor, error) {
	ca, err := os.ReadFile(filepath.Join(serverDir, "tls", "server-ca.crt"))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(serverDir, "cred", "passwd")
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader := csv.NewReader(file)
	reader.FieldsPerRecord = 4
	records, err := reader.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	logins := map[string]login{}
	for _, r := range records {
		logins[r[1]] = login{sha256.Sum256([]byte(r[0])), strings.Split(r[3], ",")}
	}
	return &supervisor{ca, filepath.Join(serverDir, "etc", "agent-config.json"), logins, cluster}, nil
}

// before answers the supervisor's paths and hands everything else on.
func (s *supervisor) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cacerts":
			w.Header().Set("Content-Type", "text/plain")
			w.Write(s.ca)
		case "/ping":
			w.Header().Set("Content-Type", "text/plain")
			w.Write([]byte("pong"))
		case "/v1-k3s/config":
			s.serveConfig(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (s *supervisor) serveConfig(w http.ResponseWriter, r *http.Request) {
	roles, known := s.roles(r)
	if !known {
		refuse(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "not authorized")
		return
	}
	if !slices.ContainsFunc(roles, func(role string) bool {
		return role == agentRole || role == user.NodesGroup || role == bootstrappers
	}) {
		refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden, "forbidden")
		return
	}
	body, err := os.ReadFile(s.config)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable,
			"agents may not join yet")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}

// roles of who asks; false where the credentials are wrong. Who shows none has none.
func (s *supervisor) roles(r *http.Request) ([]string, bool) {
	if name, password, basic := r.BasicAuth(); basic {
		found, ok := s.logins[name]
		given := sha256.Sum256([]byte(password))
		same := subtle.ConstantTimeCompare(found.password[:], given[:]) == 1
		return found.roles, ok && same
	}
	response, ok, err := s.cluster.AuthenticateRequest(r)
	if err != nil {
		return nil, false
	}
	if !ok {
		return nil, true
	}
	return response.User.GetGroups(), true
}

// refuse answers as Kubernetes does, so that one client reads both.
func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Code:     int32(code),
		Reason:   reason,
		Message:  why,
	})
}
