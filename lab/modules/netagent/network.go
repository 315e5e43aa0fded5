package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
)

// flannel repairs its own rules at this interval.
const resyncSeconds = 60

// conflist is the CNI configuration: MTU, the node's pod subnet, the cluster's pod addresses.
const conflist = `{"name":"cbr0","cniVersion":"1.0.0","plugins":[
{"type":"bridge","bridge":"cni0","isGateway":true,"forceAddress":true,"hairpinMode":true,"ipMasq":false,"mtu":%d,
 "ipam":{"type":"host-local","ranges":[[{"subnet":"%s"}]],"routes":[{"dst":"%s"},{"dst":"0.0.0.0/0"}]}},
{"type":"portmap","capabilities":{"portMappings":true}},
{"type":"bandwidth","capabilities":{"bandwidth":true}}]}
`

// startNetwork joins the node to the pod network, keeps it joined in the background, and only
// then writes the CNI configuration: containerd calls the node ready when that file is there.
func startNetwork(ctx context.Context, wg *sync.WaitGroup, o options) error {
	conf, err := writeNetConf(o)
	if err != nil {
		return fmt.Errorf("flannel configuration: %w", err)
	}
	defer os.RemoveAll(filepath.Dir(conf))
	// flannel's subnet manager knows its node by this variable only.
	if err := os.Setenv("NODE_NAME", o.node); err != nil {
		return err
	}
	manager, err := kube.NewSubnetManager(ctx, "", o.kubeconfig, "flannel.alpha.coreos.com", conf, false)
	if err != nil {
		return fmt.Errorf("subnet manager: %w", err)
	}
	network, err := manager.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("network configuration: %w", err)
	}
	family, err := ipmatch.GetIPFamily(true, false)
	if err != nil {
		return fmt.Errorf("address family: %w", err)
	}
	iface, err := ipmatch.LookupExtIface(o.nodeIP, "", "", family, ipmatch.PublicIPOpts{PublicIP: o.nodeIP})
	if err != nil {
		return fmt.Errorf("interface of %q: %w", o.nodeIP, err)
	}
	be, err := backend.NewManager(ctx, manager, iface).GetBackend(network.BackendType)
	if err != nil {
		return fmt.Errorf("backend %q: %w", o.backend, err)
	}
	joined, err := be.RegisterNetwork(ctx, wg, network)
	if err != nil {
		return fmt.Errorf("joining the pod network: %w", err)
	}
	traffic := &nftables.NFTablesManager{}
	if err := traffic.Init(ctx); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	if err := traffic.SetupAndEnsureMasqRules(ctx, network.Network, ip.IP4Net{}, ip.IP4Net{},
		network.IPv6Network, ip.IP6Net{}, ip.IP6Net{}, joined.Lease(), resyncSeconds, false); err != nil {
		return fmt.Errorf("masquerade rules: %w", err)
	}
	traffic.SetupAndEnsureForwardRules(ctx, network.Network, network.IPv6Network, resyncSeconds)
	go joined.Run(ctx)
	cni := fmt.Sprintf(conflist, joined.MTU(), joined.Lease().Subnet, o.clusterCIDR)
	if err := writeWhole(o.cniConf, []byte(cni)); err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	return nil
}

// writeNetConf puts flannel's net-conf.json into a folder of its own and gives its path.
func writeNetConf(o options) (string, error) {
	conf, err := json.Marshal(map[string]any{
		"Network":        o.clusterCIDR,
		"EnableIPv4":     true,
		"EnableNFTables": true,
		"Backend":        map[string]string{"Type": o.backend},
	})
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "netagent-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "net-conf.json")
	return path, os.WriteFile(path, conf, 0o600)
}

// writeWhole writes a file so that no reader ever sees half of it.
func writeWhole(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	part := path + ".tmp"
	if err := os.WriteFile(part, data, 0o644); err != nil {
		return err
	}
	return os.Rename(part, path)
}
