package main

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/csv"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
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

// supervisor answers what K3s's own answers to agents (k3s-io/k3s pkg/server/handlers and
// pkg/server/auth): /cacerts and /ping to anybody, /v1-k3s/config and /v1-k3s/serving-kubelet.crt to
// whom the cluster knows as an agent. As with K3s passwords are read once: a new one holds from the
// next start on.
type supervisor struct {
	ca      []byte
	signer  crypto.Signer
	config  string // a file that is there once agents may join
	logins  map[string]login
	cluster authenticator.Request
}

func newSupervisor(serverDir string, cluster authenticator.Request) (*supervisor, error) {
	ca, err := os.ReadFile(filepath.Join(serverDir, "tls", "server-ca.crt"))
	if err != nil {
		return nil, err
	}
	key, err := keyutil.PrivateKeyFromFile(filepath.Join(serverDir, "tls", "server-ca.key"))
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
	config := filepath.Join(serverDir, "etc", "agent-config.json")
	return &supervisor{ca, key.(crypto.Signer), config, logins, cluster}, nil
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
		case "/v1-k3s/serving-kubelet.crt":
			s.serveKubelet(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// admit says whether an agent asks; whoever else does has been refused.
func (s *supervisor) admit(w http.ResponseWriter, r *http.Request) bool {
	roles, known := s.roles(r)
	if !known {
		refuse(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "not authorized")
		return false
	}
	agent := slices.ContainsFunc(roles, func(role string) bool {
		return role == agentRole || role == user.NodesGroup || role == bootstrappers
	})
	if !agent {
		refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden, "forbidden")
	}
	return agent
}

func (s *supervisor) serveConfig(w http.ResponseWriter, r *http.Request) {
	if !s.admit(w, r) {
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

// serveKubelet signs a kubelet's serving certificate: the body is a signing request in DER.
func (s *supervisor) serveKubelet(w http.ResponseWriter, r *http.Request) {
	if !s.admit(w, r) {
		return
	}
	made, err := s.sign(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: made})
	w.Write(s.ca)
}

func (s *supervisor) sign(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil {
		return nil, err
	}
	request, err := x509.ParseCertificateRequest(body)
	if err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	name, address := r.Header.Get("K3s-Node-Name"), net.ParseIP(r.Header.Get("K3s-Node-IP"))
	if name == "" || address == nil {
		return nil, errors.New("the headers K3s-Node-Name and K3s-Node-IP must name the node")
	}
	cas, err := cert.ParseCertsPEM(s.ca)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := x509.Certificate{
		Subject:      pkix.Name{CommonName: name},
		SerialNumber: serial,
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(365 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{name, "localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), address},
	}
	return x509.CreateCertificate(rand.Reader, &template, cas[0], request.PublicKey, s.signer)
}

// roles of who asks; false where the credentials are wrong. Who shows none has none.
func (s *supervisor) roles(r *http.Request) ([]string, bool) {
	name, password, basic := r.BasicAuth()
	if found, ok := s.logins[name]; basic && ok {
		given := sha256.Sum256([]byte(password))
		if subtle.ConstantTimeCompare(found.password[:], given[:]) == 1 {
			return found.roles, true
		}
	}
	// As with K3s a client certificate makes up for a wrong password.
	response, ok, err := s.cluster.AuthenticateRequest(r)
	if ok {
		return response.User.GetGroups(), true
	}
	return nil, err == nil && !basic
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
