"""What an account needs before its first environment: reads its settings and wires the one component."""

import pulumi

from infra.bootstrap import NAME, Bootstrap, BootstrapArgs, load_bootstrap
from infra.naming import Naming, tag_everything

settings = load_bootstrap()
naming = Naming(settings.prefix, NAME)
tag_everything(naming)

bootstrap = Bootstrap("bootstrap", BootstrapArgs(settings), naming)

pulumi.export("backend_url", bootstrap.backend_url)
pulumi.export("secrets_provider", bootstrap.secrets_provider)
pulumi.export("preview_role", bootstrap.preview_role.arn)
pulumi.export("deploy_role", bootstrap.deploy_role.arn)
