"""Functions, APIs, parameters and logs."""

import io
import zipfile
from typing import Any

from pulumi.runtime import rpc

from embedded.resources.row import Call, Row


def _lambda_code(properties: dict[str, Any]) -> dict[str, Any]:
    """Zip an archive of text assets, as the provider does before it uploads."""
    archive = properties.pop("code", None)
    if archive is None:
        return properties
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, asset in archive["assets"].items():
            if asset.get(rpc._special_sig_key) != rpc._special_asset_sig or "text" not in asset:
                raise ValueError(f"code: {name} is not a text asset; the emulated AWS takes only those")
            file.writestr(name, asset["text"])
    return properties | {"zipFile": content.getvalue()}


def _user_pool(properties: dict[str, Any]) -> dict[str, Any]:
    """A pool as the API has it: the rules for passwords are one of its policies."""
    changed = {name: value for name, value in properties.items() if name != "passwordPolicy"}
    return changed | {"policies": {"passwordPolicy": properties["passwordPolicy"]}}


ROWS: dict[str, Row] = {
    "aws:ssm/parameter:Parameter": Row(
        "ssm",
        Call("PutParameter"),
        id="{name}",
        delete=Call("DeleteParameter", parameters={"Name": "{id}"}),
        update={
            name: Call("PutParameter", parameters={"Overwrite": True}, takes=("name", "type", "value", "description"))
            for name in ("value", "description")
        },
        outputs={"arn": "arn:aws:ssm:{region}:{account}:parameter{name}"},
    ),
    "aws:cloudwatch/logGroup:LogGroup": Row(
        "logs",
        Call("CreateLogGroup", rename={"name": "logGroupName"}),
        id="{name}",
        delete=Call("DeleteLogGroup", parameters={"logGroupName": "{id}"}),
        then=(Call("PutRetentionPolicy", parameters={"logGroupName": "{id}"}, takes=("retentionInDays",)),),
        update={"retentionInDays": Call("PutRetentionPolicy", parameters={"logGroupName": "{id}"})},
        outputs={"arn": "arn:aws:logs:{region}:{account}:log-group:{name}"},
    ),
    "aws:lambda/function:Function": Row(
        "lambda",
        Call("CreateFunction", rename={"name": "FunctionName"}),
        id="{name}",
        delete=Call("DeleteFunction", parameters={"FunctionName": "{id}"}),
        prepare=_lambda_code,
        update={
            **{
                name: Call("UpdateFunctionConfiguration", parameters={"FunctionName": "{id}"})
                for name in ("description", "environment", "memorySize", "timeout", "role")
            },
            "imageUri": Call("UpdateFunctionCode", parameters={"FunctionName": "{id}"}),
        },
        outputs={
            "arn": "{functionArn}",
            "invokeArn": "arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{functionArn}/invocations",
        },
    ),
    "aws:lambda/permission:Permission": Row(
        "lambda",
        Call("AddPermission", rename={"function": "FunctionName"}),
        id="{statementId}",
        delete=Call("RemovePermission", rename={"function": "FunctionName"}),
        auto_name="statementId",
    ),
    "aws:apigatewayv2/api:Api": Row(
        "apigatewayv2",
        Call("CreateApi"),
        id="{apiId}",
        delete=Call("DeleteApi"),
        update={
            **{
                name: Call("UpdateApi", parameters={"ApiId": "{id}"})
                for name in ("name", "description", "corsConfiguration", "disableExecuteApiEndpoint")
            },
            "tags": Call("TagResource", parameters={"ResourceArn": "{arn}"}, takes=("tags",)),
        },
        outputs={
            "arn": "arn:aws:apigateway:{region}::/apis/{id}",
            "executionArn": "arn:aws:execute-api:{region}:{account}:{id}",
        },
    ),
    "aws:apigatewayv2/integration:Integration": Row(
        "apigatewayv2",
        Call("CreateIntegration"),
        id="{integrationId}",
        delete=Call("DeleteIntegration", parameters={"IntegrationId": "{id}"}),
    ),
    "aws:apigatewayv2/route:Route": Row(
        "apigatewayv2",
        Call("CreateRoute"),
        id="{routeId}",
        delete=Call("DeleteRoute", parameters={"RouteId": "{id}"}),
    ),
    "aws:apigatewayv2/stage:Stage": Row(
        "apigatewayv2",
        Call("CreateStage", rename={"name": "StageName"}),
        id="{name}",
        delete=Call("DeleteStage", parameters={"StageName": "{id}"}),
        update={
            name: Call("UpdateStage", rename={"name": "StageName"}, parameters={"StageName": "{id}"})
            for name in ("accessLogSettings", "defaultRouteSettings", "autoDeploy", "description")
        },
        outputs={
            "arn": "arn:aws:apigateway:{region}::/apis/{apiId}/stages/{name}",
            "invokeUrl": "https://{apiId}.execute-api.{region}.amazonaws.com/",
        },
    ),
    "aws:apigatewayv2/authorizer:Authorizer": Row(
        "apigatewayv2",
        Call("CreateAuthorizer", rename={"audiences": "Audience"}),
        id="{authorizerId}",
        delete=Call("DeleteAuthorizer", parameters={"AuthorizerId": "{id}"}, takes=("apiId",)),
    ),
    "aws:apigatewayv2/vpcLink:VpcLink": Row(
        "apigatewayv2",
        Call("CreateVpcLink"),
        id="{vpcLinkId}",
        delete=Call("DeleteVpcLink", parameters={"VpcLinkId": "{id}"}),
    ),
    "aws:cognito/userPool:UserPool": Row(
        "cognito-idp",
        Call("CreateUserPool", rename={"name": "PoolName", "tags": "UserPoolTags"}),
        id="{id}",
        answer="UserPool",
        delete=Call("DeleteUserPool", parameters={"UserPoolId": "{id}"}),
        outputs={"arn": "arn:aws:cognito-idp:{region}:{account}:userpool/{id}"},
        prepare=_user_pool,
    ),
    "aws:cognito/resourceServer:ResourceServer": Row(
        "cognito-idp",
        Call("CreateResourceServer"),
        id="{identifier}",
        delete=Call("DeleteResourceServer", parameters={"Identifier": "{id}"}, takes=("userPoolId",)),
    ),
    "aws:cognito/userPoolClient:UserPoolClient": Row(
        "cognito-idp",
        Call("CreateUserPoolClient", rename={"name": "ClientName"}),
        id="{clientId}",
        answer="UserPoolClient",
        delete=Call("DeleteUserPoolClient", parameters={"ClientId": "{id}"}, takes=("userPoolId",)),
    ),
    "aws:cognito/userPoolDomain:UserPoolDomain": Row(
        "cognito-idp",
        Call("CreateUserPoolDomain"),
        id="{domain}",
        delete=Call("DeleteUserPoolDomain", parameters={"Domain": "{id}"}, takes=("userPoolId",)),
    ),
}
