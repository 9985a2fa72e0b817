"""The internal load balancer before what runs on ECS, and the link by which the API reaches it."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.access import HTTPS, https_listener, internal_balancer, open_to_aws, open_way, security_group
from infra.foundation import Foundation
from infra.settings.inference import Domain


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
        self._on, child = foundation, pulumi.ResourceOptions(parent=self)
        self.domain = args.domain.name
        of_link = security_group("link", "The API's link into the network", foundation, child)
        self._group = security_group("balancer", "HTTPS from the API's link", foundation, child)
        open_way("link-to-balancer", of_link, self._group, HTTPS, foundation, child)
        self.balancer = internal_balancer("inference", self._group, foundation, child)
        nobody: aws.lb.ListenerDefaultActionArgsDict = {
            "type": "fixed-response",
            "fixed_response": {"content_type": "application/json", "status_code": "404", "message_body": "{}"},
        }
        self.listener = https_listener("inference", self.balancer, args.domain, nobody, foundation, child)
        self.link = aws.apigatewayv2.VpcLink(
            foundation.naming("inference"),
            name=foundation.naming("inference"),
            subnet_ids=foundation.network.private_subnet_ids,
            security_group_ids=[of_link.id],
            opts=child,
        )
        self.register_outputs({"balancer": self.balancer.arn})

    def lead_to(self, model: str, port: int, opts: pulumi.ResourceOptions) -> aws.ec2.SecurityGroup:
        """A security group for a model's tasks: from the balancer, and out to AWS by HTTPS."""
        description = f"{model}: from the load balancer, and out to AWS"
        group = security_group(f"inference-{model}", description, self._on, opts)
        open_way(f"balancer-to-{model}", self._group, group, port, self._on, opts)
        open_to_aws(f"{model}-to-aws", group, self._on, opts)
        return group
