"""Ways through the network: security groups that nothing passes until a way is opened, and internal load balancers."""

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation
from infra.settings.inference import Domain
from infra.storage import BALANCERS

HTTPS = 443
ANYWHERE = "0.0.0.0/0"


def security_group(
    what: str, description: str, foundation: Foundation, opts: pulumi.ResourceOptions
) -> aws.ec2.SecurityGroup:
    """A group that nothing may pass until a way is opened."""
    name = foundation.naming(what)
    return aws.ec2.SecurityGroup(
        name, vpc_id=foundation.network.vpc_id, description=description, tags={"Name": name}, opts=opts
    )


def open_way(
    what: str,
    source: aws.ec2.SecurityGroup,
    target: aws.ec2.SecurityGroup,
    port: int,
    foundation: Foundation,
    opts: pulumi.ResourceOptions,
) -> None:
    """Let one group reach another on a port.

    The rules are resources of their own: groups that refer to each other could not be deleted otherwise.
    """
    name, description = foundation.naming(what), what.replace("-", " ")
    aws.vpc.SecurityGroupEgressRule(
        name,
        security_group_id=source.id,
        description=description,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        referenced_security_group_id=target.id,
        opts=opts,
    )
    aws.vpc.SecurityGroupIngressRule(
        name,
        security_group_id=target.id,
        description=description,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        referenced_security_group_id=source.id,
        opts=opts,
    )


def open_to_aws(what: str, source: aws.ec2.SecurityGroup, foundation: Foundation, opts: pulumi.ResourceOptions) -> None:
    """Let a group reach AWS by HTTPS: images, artifacts, parameters, logs."""
    aws.vpc.SecurityGroupEgressRule(
        foundation.naming(what),
        security_group_id=source.id,
        description=what.replace("-", " "),
        ip_protocol="tcp",
        from_port=HTTPS,
        to_port=HTTPS,
        cidr_ipv4=ANYWHERE,
        opts=opts,
    )


def internal_balancer(
    what: str, group: aws.ec2.SecurityGroup, foundation: Foundation, opts: pulumi.ResourceOptions
) -> aws.lb.LoadBalancer:
    """An application load balancer in the private subnets that logs who asks."""
    storage = foundation.storage
    return aws.lb.LoadBalancer(
        foundation.naming(what),
        load_balancer_type="application",
        internal=True,
        subnets=foundation.network.private_subnet_ids,
        security_groups=[group.id],
        drop_invalid_header_fields=True,
        enable_deletion_protection=foundation.protect,
        access_logs={
            "enabled": True,
            # Known once the policy lets it write there: AWS tries when this is set.
            "bucket": pulumi.Output.all(storage.buckets["logs"].bucket, storage.log_delivery_arn).apply(
                lambda values: str(values[0])
            ),
            "prefix": BALANCERS,
        },
        opts=opts,
    )


def https_listener(
    what: str,
    balancer: aws.lb.LoadBalancer,
    domain: Domain,
    action: aws.lb.ListenerDefaultActionArgsDict,
    foundation: Foundation,
    opts: pulumi.ResourceOptions,
) -> aws.lb.Listener:
    """A balancer's listener: HTTPS alone, at least TLS 1.2, for a domain."""
    return aws.lb.Listener(
        foundation.naming(what),
        load_balancer_arn=balancer.arn,
        port=HTTPS,
        protocol="HTTPS",
        ssl_policy="ELBSecurityPolicy-TLS13-1-2-Res-2021-06",
        certificate_arn=domain.certificate_arn,
        default_actions=[action],
        opts=opts,
    )
