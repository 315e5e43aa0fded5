# mypy: ignore-errors
"""cloud-init's EC2 data source on a machine without firmware to read its vendor from.

cloud-init speaks the metadata service's version 2 only where the firmware (DMI) says Amazon;
a container has none, and this one's cloud speaks EC2. There is no network to set up first.
"""

from cloudinit import sources
from cloudinit.sources import DataSourceEc2 as ec2

ec2.identify_platform = lambda: ec2.CloudNames.AWS


def get_datasource_list(depends):
    """Offer the data source of the network stage alone."""
    needs = (sources.DEP_FILESYSTEM, sources.DEP_NETWORK)
    return sources.list_from_depends(depends, [(ec2.DataSourceEc2, needs)])
