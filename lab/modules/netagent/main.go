// Netagent runs on every node, as K3s's own agent does: it makes the pod network (flannel as a
// library) and enforces NetworkPolicy (kube-router as a library).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

type options struct {
	kubeconfig  string
	node        string
	nodeIP      string
	clusterCIDR string
	serviceCIDR string
	backend     string
	cniConf     string
	netpol      bool
}

func main() {
	klog.InitFlags(nil)
	var o options
	flag.StringVar(&o.kubeconfig, "kubeconfig", "/etc/kubernetes/kubelet.conf",
		"credentials of the node")
	flag.StringVar(&o.node, "node", "", "name of the node (default: the hostname)")
	flag.StringVar(&o.nodeIP, "node-ip", "",
		"address that other nodes reach this one by; picks the interface as well")
	flag.StringVar(&o.clusterCIDR, "cluster-cidr", "10.42.0.0/16", "addresses of pods")
	flag.StringVar(&o.serviceCIDR, "service-cidr", "10.43.0.0/16", "addresses of services")
	flag.StringVar(&o.backend, "backend", "vxlan",
		"how packets travel between nodes: vxlan or host-gw")
	flag.StringVar(&o.cniConf, "cni-conf", "/etc/cni/net.d/10-flannel.conflist",
		"CNI configuration to write once the network stands")
	flag.BoolVar(&o.netpol, "netpol", true, "enforce NetworkPolicy")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		klog.ErrorS(err, "netagent stops")
		klog.Flush()
		os.Exit(1)
	}
}

// run works until ctx ends; an error says which step failed.
func run(ctx context.Context, o options) error {
	if o.node == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
		o.node = name
	}
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if err := waitForPodCIDR(ctx, client, o.node); err != nil {
		return err
	}
	var wg sync.WaitGroup
	if err := startNetwork(ctx, &wg, o); err != nil {
		return err
	}
	if o.netpol {
		if err := startPolicy(ctx, &wg, client, o); err != nil {
			return err
		}
	}
	klog.InfoS("netagent ready", "node", o.node, "backend", o.backend, "netpol", o.netpol)
	<-ctx.Done()
	return nil
}

// waitForPodCIDR returns when the controller manager has given the node its addresses. Errors of
// the API are waited out: the node may not be registered yet, the server may be starting.
func waitForPodCIDR(ctx context.Context, client kubernetes.Interface, node string) error {
	for {
		n, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err == nil && n.Spec.PodCIDR != "" {
			return nil
		}
		klog.V(2).InfoS("waiting for the node's pod CIDR", "node", node, "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}
