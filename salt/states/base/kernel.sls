# The kernel as K3s needs it. K3s loads its modules by itself and says so if it cannot. Nothing is
# written to a kernel that forwards already: not every machine lets us.
/etc/sysctl.d/60-f1.conf:
  machine.kernel:
    - settings: {net.ipv4.ip_forward: 1}

# What the kubelet insists on with `protect-kernel-defaults` (K3s's hardening guide, "Set kernel
# parameters"): a node without memory kills a process, not itself; one that oopses boots again.
/etc/sysctl.d/90-kubelet.conf:
  machine.kernel:
    - settings:
        vm.panic_on_oom: 0
        vm.overcommit_memory: 1
        kernel.panic: 10
        kernel.panic_on_oops: 1
