"""Names of what the lab makes on the host; each begins with f1-, none is longer than the
15 characters a network interface may have."""

ROUTER = "f1-cloud"  # network namespace of the VPC's router
OUTSIDE = "f1-outside"  # network namespace of the internet and its voters
HOST_LINK = "f1-host"  # the host's cable into the internet
UPLINK = "f1-up"  # the router's cable into the internet
BRIDGE = "f1-net"  # the internet, a switch within OUTSIDE
