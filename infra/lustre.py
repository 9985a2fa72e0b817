"""A file system in front of the lake, for jobs that read faster than S3 answers: FSx for Lustre."""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from infra.access import security_group
from infra.foundation import Foundation
from infra.settings.cluster import LustreSettings

PORTS = ((988, 988), (1018, 1023))
"""Of Lustre: its servers and its clients call one another."""


@dataclass
class LustreArgs:
    """The file system, and who mounts it."""

    settings: LustreSettings
    zones: tuple[str, ...]
    """Of the network, in the order of its subnets."""
    clients: pulumi.Input[str]
    """Security group of the nodes."""


class Lustre(pulumi.ComponentResource):
    """A file system whose root is the curated bucket: objects show as files, are fetched when read, and stay cached.

    It holds nothing that the bucket does not, so there are no backups. Nothing that is written to it gets into the
    lake: jobs leave their results in S3, and the volume is mounted for reading.
    """

    file_system: aws.fsx.LustreFileSystem
    linked: aws.fsx.DataRepositoryAssociation

    def __init__(
        self, name: str, args: LustreArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Lustre", name, None, opts)
        self._on, self._args = foundation, args
        self._child = pulumi.ResourceOptions(parent=self)
        self.file_system = self._file_system()
        self.linked = aws.fsx.DataRepositoryAssociation(
            foundation.naming("lake"),
            file_system_id=self.file_system.id,
            file_system_path="/",
            data_repository_path=pulumi.Output.concat("s3://", foundation.storage.buckets["curated"].bucket),
            batch_import_meta_data_on_create=True,
            delete_data_in_filesystem=True,
            s3={"auto_import_policy": {"events": ["NEW", "CHANGED", "DELETED"]}},
            opts=self._child,
        )
        self.register_outputs({"file_system": self.file_system.id})

    @property
    def volume(self) -> kubernetes.core.v1.CSIPersistentVolumeSourceArgsDict:
        """The source of a Kubernetes volume, as FSx's driver takes it (with the names of Pulumi's SDK)."""
        return {
            "driver": "fsx.csi.aws.com",
            "volume_handle": self.file_system.id,
            "read_only": True,
            "volume_attributes": {"dnsname": self.file_system.dns_name, "mountname": self.file_system.mount_name},
        }

    def _file_system(self) -> aws.fsx.LustreFileSystem:
        settings, name = self._args.settings, self._on.naming("lake")
        subnet = self._on.network.private_subnet_ids[self._args.zones.index(settings.zone)]
        return aws.fsx.LustreFileSystem(
            name,
            deployment_type="PERSISTENT_2",
            file_system_type_version="2.15",
            storage_capacity=settings.storage_gib,
            per_unit_storage_throughput=settings.throughput,
            data_compression_type="LZ4",
            automatic_backup_retention_days=0,
            subnet_ids=subnet,
            security_group_ids=[self._security_group().id],
            kms_key_id=self._on.storage.key_arn,
            tags={"Name": name},
            opts=pulumi.ResourceOptions(parent=self, protect=self._on.protect),
        )

    def _security_group(self) -> aws.ec2.SecurityGroup:
        group = security_group("lustre", "The lake's file system: its servers and the nodes", self._on, self._child)
        for first, last in PORTS:
            for what, other in (("nodes", self._args.clients), ("servers", group.id)):
                ends: dict[str, Any] = {
                    "security_group_id": group.id,
                    "referenced_security_group_id": other,
                    "ip_protocol": "tcp",
                    "from_port": first,
                    "to_port": last,
                }
                name = self._on.naming(f"lustre-{what}-{first}")
                aws.vpc.SecurityGroupIngressRule(name, description=f"Lustre from {what}", opts=self._child, **ends)
                aws.vpc.SecurityGroupEgressRule(name, description=f"Lustre to {what}", opts=self._child, **ends)
        return group
