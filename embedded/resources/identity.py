"""Roles and their policies."""

from embedded.resources.row import Call, Row

ROWS: dict[str, Row] = {
    "aws:iam/role:Role": Row(
        "iam",
        Call(
            "CreateRole",
            rename={"name": "RoleName", "assumeRolePolicy": "AssumeRolePolicyDocument"},
        ),
        id="{name}",
        answer="Role",
        delete=Call("DeleteRole", parameters={"RoleName": "{id}"}),
        auto_name="name",
        update={
            "assumeRolePolicy": Call(
                "UpdateAssumeRolePolicy", parameters={"RoleName": "{id}", "PolicyDocument": "{assumeRolePolicy}"}
            )
        },
        no_effect=frozenset({"forceDetachPolicies"}),
    ),
    "aws:iam/rolePolicy:RolePolicy": Row(
        "iam",
        Call("PutRolePolicy", rename={"role": "RoleName", "name": "PolicyName", "policy": "PolicyDocument"}),
        id="{role}:{name}",
        delete=Call("DeleteRolePolicy", rename={"role": "RoleName", "name": "PolicyName"}),
        auto_name="name",
        put=True,
        identity=frozenset({"role", "name"}),
    ),
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider": Row(
        "iam",
        Call("CreateOpenIDConnectProvider", rename={"clientIdLists": "ClientIDList"}),
        id="{openIDConnectProviderArn}",
        delete=Call("DeleteOpenIDConnectProvider", parameters={"OpenIDConnectProviderArn": "{id}"}),
        update={"tags": Call("TagOpenIDConnectProvider", parameters={"OpenIDConnectProviderArn": "{id}"})},
        outputs={"arn": "{id}"},
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Row(
        "iam",
        Call("AttachRolePolicy", rename={"role": "RoleName"}),
        id="{role}-{policyArn}",
        delete=Call("DetachRolePolicy", rename={"role": "RoleName"}),
    ),
}
