"""The internal load balancer before what runs on ECS, and the link by which the API reaches it."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.foundation import Foundation
from infra.settings.inference import Domain
from infra.storage import BALANCERS


@dataclass
class BalancerArgs:
    """The name that the balancer's certificate is for."""

    domain: Domain


class Balancer(pulumi.ComponentResource):
    """One application load balancer for all models on ECS: internal, HTTPS only, reached by the API's link alone."""

    def __init__(
        self, name: str, args: BalancerArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Balancer", name, None, opts)
        self._on, self._naming = foundation, foundation.naming
        self._child = pulumi.ResourceOptions(parent=self)
        self.domain = args.domain.name
        self._link_group = self.security_group("link", "The API's link into the network", self._child)
        self._group = self.security_group("balancer", "HTTPS from the API's link", self._child)
        self.open("link-to-balancer", self._link_group, self._group, 443, self._child)
        self.balancer = self._make_balancer()
        self.listener = aws.lb.Listener(
            self._naming("inference"),
            load_balancer_arn=self.balancer.arn,
            port=443,
            protocol="HTTPS",
            ssl_policy="ELBSecurityPolicy-TLS13-1-2-Res-2021-06",
            certificate_arn=args.domain.certificate_arn,
            default_actions=[
                {
                    "type": "fixed-response",
                    "fixed_response": {"content_type": "application/json", "status_code": "404", "message_body": "{}"},
                }
            ],
            opts=self._child,
        )
        self.link = aws.apigatewayv2.VpcLink(
            self._naming("inference"),
            name=self._naming("inference"),
            subnet_ids=foundation.network.private_subnet_ids,
            security_group_ids=[self._link_group.id],
            opts=self._child,
        )
        self.register_outputs({"balancer": self.balancer.arn})

    def _make_balancer(self) -> aws.lb.LoadBalancer:
        storage = self._on.storage
        return aws.lb.LoadBalancer(
            self._naming("inference"),
            load_balancer_type="application",
            internal=True,
            subnets=self._on.network.private_subnet_ids,
            security_groups=[self._group.id],
            drop_invalid_header_fields=True,
            enable_deletion_protection=self._on.protect,
            access_logs={
                "enabled": True,
                # Known once the policy lets it write there: AWS tries when this is set.
                "bucket": pulumi.Output.all(storage.buckets["logs"].bucket, storage.log_delivery_arn).apply(
                    lambda values: str(values[0])
                ),
                "prefix": BALANCERS,
            },
            opts=self._child,
        )

    def lead_to(self, model: str, port: int, opts: pulumi.ResourceOptions) -> aws.ec2.SecurityGroup:
        """A security group for a model's tasks: from the balancer, and out to AWS by HTTPS."""
        group = self.security_group(f"inference-{model}", f"{model}: from the load balancer, and out to AWS", opts)
        self.open(f"balancer-to-{model}", self._group, group, port, opts)
        aws.vpc.SecurityGroupEgressRule(
            self._naming(f"{model}-to-aws"),
            security_group_id=group.id,
            description="HTTPS to AWS: the image, artifacts, parameters, logs",
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            cidr_ipv4="0.0.0.0/0",
            opts=opts,
        )
        return group

    def security_group(self, what: str, description: str, opts: pulumi.ResourceOptions) -> aws.ec2.SecurityGroup:
        """A group that nothing may pass until a rule is added."""
        return aws.ec2.SecurityGroup(
            self._naming(what),
            vpc_id=self._on.network.vpc_id,
            description=description,
            tags={"Name": self._naming(what)},
            opts=opts,
        )

    def open(
        self,
        what: str,
        source: aws.ec2.SecurityGroup,
        target: aws.ec2.SecurityGroup,
        port: int,
        opts: pulumi.ResourceOptions,
    ) -> None:
        """Let one group reach another; as resources of their own, or groups that refer to each other never go."""
        aws.vpc.SecurityGroupEgressRule(
            self._naming(what),
            security_group_id=source.id,
            description=what.replace("-", " "),
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            referenced_security_group_id=target.id,
            opts=opts,
        )
        aws.vpc.SecurityGroupIngressRule(
            self._naming(what),
            security_group_id=target.id,
            description=what.replace("-", " "),
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            referenced_security_group_id=source.id,
            opts=opts,
        )
