// Kube-apiserver is upstream's, with one thing added: given `--k3s-server-dir` it answers, on its
// own port, the paths of K3s's supervisor that come before Kubernetes' API (see supervisor.go).
package main

import (
	"context"
	"net/http"
	"os"
	_ "time/tzdata" // for time zones of CronJobs, as upstream

	"github.com/spf13/cobra"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	utilversion "k8s.io/component-base/version"
	"k8s.io/component-base/version/verflag"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

func main() {
	os.Exit(cli.Run(command()))
}

// command is upstream's NewAPIServerCommand; what it starts goes through run, below.
func command() *cobra.Command {
	s := options.NewServerRunOptions()
	registry := s.GenericServerRunOptions.ComponentGlobalsRegistry
	gate := registry.FeatureGateFor(basecompatibility.DefaultKubeComponent)
	var serverDir string
	cmd := &cobra.Command{
		Use:          "kube-apiserver",
		SilenceUsage: true,
		Args:         cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			rest.SetDefaultWarningHandler(rest.NoWarnings{})
			return registry.Set()
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			verflag.PrintAndExitIfRequested()
			if err := logsapi.ValidateAndApply(s.Logs, gate); err != nil {
				return err
			}
			cliflag.PrintFlags(cmd.Flags())
			completed, err := s.Complete(cmd.Context())
			if err != nil {
				return err
			}
			if errs := completed.Validate(); len(errs) != 0 {
				return utilerrors.NewAggregate(errs)
			}
			gate.(featuregate.MutableFeatureGate).AddMetrics()
			registry.AddMetrics()
			return run(cmd.Context(), completed, serverDir)
		},
	}
	cmd.SetContext(genericapiserver.SetupSignalContext())
	sets := s.Flags()
	verflag.AddFlags(sets.FlagSet("global"))
	globalflag.AddGlobalFlags(sets.FlagSet("global"), cmd.Name(), logs.SkipLoggingConfigurationFlags())
	for _, set := range sets.FlagSets {
		cmd.Flags().AddFlagSet(set)
	}
	cmd.Flags().StringVar(&serverDir, "k3s-server-dir", "",
		"K3s's <data-dir>/server: answer the paths of its supervisor from what lies there")
	return cmd
}

// run is upstream's Run, with the supervisor in front of everything, authentication included.
func run(ctx context.Context, opts options.CompletedOptions, serverDir string) error {
	klog.Infof("Version: %+v", utilversion.Get())
	config, err := app.NewConfig(opts)
	if err != nil {
		return err
	}
	if serverDir != "" {
		generic := &config.Aggregator.GenericConfig.Config
		front, err := newSupervisor(serverDir, generic.Authentication.Authenticator)
		if err != nil {
			return err
		}
		build := generic.BuildHandlerChainFunc
		generic.BuildHandlerChainFunc = func(h http.Handler, c *genericapiserver.Config) http.Handler {
			return front.before(build(h, c))
		}
	}
	completed, err := config.Complete()
	if err != nil {
		return err
	}
	server, err := app.CreateServerChain(completed)
	if err != nil {
		return err
	}
	prepared, err := server.PrepareRun()
	if err != nil {
		return err
	}
	return prepared.Run(ctx)
}
