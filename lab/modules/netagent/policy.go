package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	krouter "github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/cloudnativelabs/kube-router/v2/pkg/utils"
	"github.com/coreos/go-iptables/iptables"
	"github.com/vishvananda/netlink"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// startPolicy enforces NetworkPolicy in the background, as K3s does it: the network policy
// controller of kube-router alone, IPv4, on iptables and ipset.
func startPolicy(ctx context.Context, wg *sync.WaitGroup, client kubernetes.Interface, o options) error {
	config := krouter.NewKubeRouterConfig()
	config.ClusterIPCIDRs = []string{o.serviceCIDR}
	config.EnableIPv4 = true
	config.NodePortRange = "30000:32767"
	config.HostnameOverride = o.node
	config.RunFirewall = true

	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return errors.Join(ctx.Err(), fmt.Errorf("no list of %v", kind))
		}
	}

	rules, err := iptables.NewWithProtocol(iptables.ProtocolIPv4)
	if err != nil {
		return fmt.Errorf("iptables: %w", err)
	}
	sets, err := utils.NewIPSet(false)
	if err != nil {
		return fmt.Errorf("ipset: %w", err)
	}
	if err := sets.Save(); err != nil {
		return fmt.Errorf("ipset save: %w", err)
	}
	controller, err := netpol.NewNetworkPolicyController(client, config, pods, policies, namespaces,
		&sync.Mutex{}, &netlink.Handle{},
		map[v1.IPFamily]utils.IPTablesHandler{v1.IPv4Protocol: rules},
		map[v1.IPFamily]utils.IPSetHandler{v1.IPv4Protocol: sets})
	if err != nil {
		return fmt.Errorf("network policy controller: %w", err)
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods:       controller.PodEventHandler,
		namespaces: controller.NamespaceEventHandler,
		policies:   controller.NetworkPolicyEventHandler,
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}

	// The controller reports that it lives and blocks when nobody listens.
	beats := make(chan *healthcheck.ControllerHeartbeat)
	go func() {
		for range beats {
		}
	}()
	wg.Add(1)
	go controller.Run(beats, ctx.Done(), wg)
	return nil
}
