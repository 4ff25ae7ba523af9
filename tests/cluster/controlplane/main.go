// Command controlplane is a whole Kubernetes control plane in one binary: `controlplane etcd …`,
// `controlplane kube-apiserver …`, `controlplane kube-controller-manager …`. One binary instead of
// three shares what they link, which is most of each.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"

	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

func main() {
	if len(os.Args) < 2 {
		fail("no part named")
	}
	part := os.Args[1]
	// Every part believes that it was started by its own name.
	os.Args = append([]string{part}, os.Args[2:]...)
	switch part {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		run(apiserver.NewAPIServerCommand())
	case "kube-controller-manager":
		run(manager.NewControllerManagerCommand())
	default:
		fail("unknown part " + part)
	}
}

func run(command *cobra.Command) {
	os.Exit(cli.Run(command))
}

func fail(reason string) {
	fmt.Fprintln(os.Stderr, "controlplane: "+reason+"; name one of etcd, kube-apiserver, kube-controller-manager")
	os.Exit(2)
}
