"""The network: VPC, subnets, routes, gateways, endpoints."""

from typing import Any

from embedded.resources.row import Call, Row


def _ec2_arn(kind: str) -> dict[str, str]:
    return {"arn": f"arn:aws:ec2:{{region}}:{{account}}:{kind}/{{id}}"}


def _zone(properties: dict[str, Any]) -> dict[str, Any]:
    """A private zone as the API has it: of one VPC, to begin with."""
    return properties | {"VPC": {"VPCId": properties["vpcs"][0]["vpcId"]}}


def _record(properties: dict[str, Any]) -> dict[str, Any]:
    """An alias record as the API has it: a batch of one change."""
    (alias,) = properties["aliases"]
    target = {
        "HostedZoneId": alias["zoneId"],
        "DNSName": alias["name"],
        "EvaluateTargetHealth": alias["evaluateTargetHealth"],
    }
    record = {"Name": properties["name"], "Type": properties["type"], "AliasTarget": target}
    return properties | {"changeBatch": {"changes": [{"action": "UPSERT", "resourceRecordSet": record}]}}


ROWS: dict[str, Row] = {
    "aws:ec2/vpc:Vpc": Row(
        "ec2",
        Call("CreateVpc"),
        id="{vpcId}",
        answer="Vpc",
        delete=Call("DeleteVpc"),
        then=tuple(  # one attribute a call, says the API
            Call("ModifyVpcAttribute", parameters={"VpcId": "{id}"}, takes=(name,))
            for name in ("enableDnsSupport", "enableDnsHostnames")
        ),
        outputs=_ec2_arn("vpc"),
    ),
    "aws:ec2/subnet:Subnet": Row(
        "ec2",
        Call("CreateSubnet"),
        id="{subnetId}",
        answer="Subnet",
        delete=Call("DeleteSubnet"),
        then=(Call("ModifySubnetAttribute", parameters={"SubnetId": "{id}"}, takes=("mapPublicIpOnLaunch",)),),
        outputs=_ec2_arn("subnet"),
    ),
    "aws:ec2/internetGateway:InternetGateway": Row(
        "ec2",
        Call("CreateInternetGateway"),
        id="{internetGatewayId}",
        answer="InternetGateway",
        delete=(
            Call("DetachInternetGateway", parameters={"InternetGatewayId": "{id}"}, takes=("vpcId",)),
            Call("DeleteInternetGateway"),
        ),
        then=(Call("AttachInternetGateway", parameters={"InternetGatewayId": "{id}"}, takes=("vpcId",)),),
        outputs=_ec2_arn("internet-gateway"),
    ),
    "aws:ec2/eip:Eip": Row(
        "ec2",
        Call("AllocateAddress"),
        id="{allocationId}",
        delete=Call("ReleaseAddress", parameters={"AllocationId": "{id}"}),
        outputs=_ec2_arn("elastic-ip"),
    ),
    "aws:ec2/natGateway:NatGateway": Row(
        "ec2",
        Call("CreateNatGateway"),
        id="{natGatewayId}",
        answer="NatGateway",
        delete=(Call("DeleteNatGateway"), Call("DisassociateAddress", takes=("publicIp",))),
    ),
    "aws:ec2/routeTable:RouteTable": Row(
        "ec2",
        Call("CreateRouteTable"),
        id="{routeTableId}",
        answer="RouteTable",
        delete=Call("DeleteRouteTable"),
        outputs=_ec2_arn("route-table"),
    ),
    "aws:ec2/route:Route": Row(
        "ec2",
        Call("CreateRoute"),
        id="r-{routeTableId}-{destinationCidrBlock}",
        delete=Call("DeleteRoute", parameters={"DestinationCidrBlock": "{destinationCidrBlock}"}),
    ),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": Row(
        "ec2",
        Call("AssociateRouteTable"),
        id="{associationId}",
        delete=Call("DisassociateRouteTable", parameters={"AssociationId": "{id}"}),
    ),
    "aws:ec2/vpcEndpoint:VpcEndpoint": Row(
        "ec2",
        Call("CreateVpcEndpoint"),
        id="{vpcEndpointId}",
        answer="VpcEndpoint",
        delete=Call("DeleteVpcEndpoints", parameters={"VpcEndpointIds": "{id}"}),
        outputs=_ec2_arn("vpc-endpoint"),
    ),
    "aws:ec2/flowLog:FlowLog": Row(
        "ec2",
        Call(
            "CreateFlowLogs",
            rename={"vpcId": "ResourceIds"},
            parameters={"ResourceType": "VPC"},
        ),
        id="{flowLogIds}",
        delete=Call("DeleteFlowLogs", parameters={"FlowLogIds": "{id}"}),
    ),
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": Row(  # every VPC has one: it is found, not made
        "ec2",
        Call(
            "DescribeSecurityGroups",
            parameters={
                "Filters": [
                    {"Name": "vpc-id", "Values": ["{vpcId}"]},
                    {"Name": "group-name", "Values": ["default"]},
                ]
            },
            takes=("vpcId",),
        ),
        id="{groupId}",
        then=(
            Call(
                "RevokeSecurityGroupEgress",
                parameters={
                    "GroupId": "{id}",
                    "IpPermissions": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
                },
                takes=("vpcId",),
            ),
        ),
    ),
    "aws:ec2/securityGroup:SecurityGroup": Row(
        "ec2",
        Call("CreateSecurityGroup", rename={"name": "GroupName"}),
        id="{groupId}",
        delete=Call("DeleteSecurityGroup", parameters={"GroupId": "{id}"}),
        auto_name="name",
        outputs=_ec2_arn("security-group"),
    ),
    "aws:route53/zone:Zone": Row(
        "route53",
        Call("CreateHostedZone", parameters={"CallerReference": "{name}"}),
        id="{id}",
        answer="HostedZone",
        delete=Call("DeleteHostedZone", parameters={"Id": "{id}"}),
        prepare=_zone,
        outputs={"arn": "arn:aws:route53:::hostedzone/{id}", "zoneId": "{id}"},
        no_effect=frozenset({"forceDestroy", "vpcs"}),
    ),
    "aws:route53/record:Record": Row(
        "route53",
        Call("ChangeResourceRecordSets", rename={"zoneId": "HostedZoneId"}),
        id="{zoneId}_{name}_{type}",
        prepare=_record,
        put=True,
        identity=frozenset({"zoneId", "name", "type"}),
        no_effect=frozenset({"name", "type", "aliases"}),
    ),
}
